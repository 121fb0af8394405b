import { MinirunError } from '../errors.ts';
import {
  type Address,
  canonicalAddress,
  contains,
  type Family,
  formatAddress,
  parseAddress,
  parseSubnet,
  type Range,
} from './address.ts';
import type { Network, Subnet } from './definition.ts';

type Pool = Pick<Network, 'name' | 'subnets' | 'leases' | 'last' | 'hostAddress'>;

/** An address of a container and the range that it is of. */
export interface Allocated {
  address: string;
  subnet: Subnet;
}

/**
 * Gives a container an address of each family that the network has, in memory: the caller holds the lock and writes the
 * file. Looks for a free one after the last that was handed out, so that an address is not reused while peers remember
 * its MAC; of several ranges of a family the first that has one.
 *
 * @param nameOf what to call the container that has a wanted address already
 * @throws MinirunError when the pool is used up, or a wanted address is outside it, reserved or taken; nothing is leased then
 */
export function allocate(
  network: Pool,
  container: string,
  wanted: { ip?: string; ip6?: string } = {},
  nameOf: (container: string) => string = (id) => id.slice(0, 12),
): { ipv4?: Allocated; ipv6?: Allocated } {
  const ipv4 = choose(network, 4, wanted.ip, nameOf);
  const ipv6 = choose(network, 6, wanted.ip6, nameOf);
  for (const [allocated, given] of [
    [ipv4, wanted.ip],
    [ipv6, wanted.ip6],
  ] as const) {
    if (allocated === undefined) continue;
    network.leases[allocated.address] = container;
    if (given === undefined) network.last[allocated.subnet.subnet] = allocated.address;
  }
  return { ipv4, ipv6 };
}

/** Gives all addresses of a container back; whether it had any. */
export function release(network: Pick<Network, 'leases'>, container: string): boolean {
  const held = Object.entries(network.leases).filter(([, holder]) => holder === container);
  for (const [address] of held) delete network.leases[address];
  return held.length > 0;
}

function choose(
  network: Pool,
  family: Family,
  wanted: string | undefined,
  nameOf: (container: string) => string,
): Allocated | undefined {
  const subnets = network.subnets.filter(({ subnet }) => parseSubnet(subnet).family === family);
  if (wanted !== undefined) return checked(network, subnets, family, wanted, nameOf);
  if (subnets.length === 0) return undefined;
  for (const subnet of subnets) {
    const address = nextFree(network, subnet);
    if (address !== undefined) return { address, subnet };
  }
  throw new MinirunError(
    `no address left in network "${network.name}"`,
    `all of ${subnets.map(({ subnet, range }) => range ?? subnet).join(', ')} is in use`,
    'Remove containers (minirun rm), or use a network with a larger subnet',
  );
}

/** The addresses of a range that a container may have: not the network's own, not the broadcast address of IPv4. */
export function usableRange({ family, first, last }: Pick<Range, 'family' | 'first' | 'last'>): {
  first: bigint;
  last: bigint;
} {
  return { first: first + 1n, last: family === 4 ? last - 1n : last };
}

function nextFree(network: Pool, subnet: Subnet): string | undefined {
  const whole = parseSubnet(subnet.subnet);
  const usable = usableRange(whole);
  const part = subnet.range === undefined ? usable : parseSubnet(subnet.range);
  const first = part.first > usable.first ? part.first : usable.first;
  const last = part.last < usable.last ? part.last : usable.last;
  const size = last - first + 1n;
  const handedOut = network.last[subnet.subnet];
  const before = handedOut === undefined ? first - 1n : parseAddress(handedOut).value;
  const taken = new Set([...Object.keys(network.leases), subnet.gateway, ...Object.values(subnet.reserved ?? {})]);
  // One of so many candidates must be free, if any is.
  const tries = size < BigInt(taken.size + 1) ? size : BigInt(taken.size + 1);
  const start = before < first - 1n || before > last ? first - 1n : before;
  for (let step = 1n; step <= tries; step++) {
    const address = formatAddress({ family: whole.family, value: first + ((start - first + step + size) % size) });
    if (!taken.has(address)) return address;
  }
  return undefined;
}

function checked(
  network: Pool,
  subnets: readonly Subnet[],
  family: Family,
  wanted: string,
  nameOf: (container: string) => string,
): Allocated {
  const refuse = (why: string, remedy: string) => new MinirunError(`cannot use address ${address}`, why, remedy);
  const value: Address = parseAddress(wanted, family);
  const address = canonicalAddress(wanted);
  const subnet = subnets.find((each) => contains(parseSubnet(each.subnet), value));
  if (subnet === undefined) {
    if (subnets.length === 0) {
      throw refuse(
        `network "${network.name}" has no IPv${family} subnet`,
        `Leave ${family === 6 ? '--ip6' : '--ip'} out, or choose another network`,
      );
    }
    const example = nextFree(network, subnets[0] as Subnet);
    throw refuse(
      `it is outside ${subnets.map((each) => each.subnet).join(' and ')}, the subnet of network "${network.name}"`,
      `Choose one from that subnet${example === undefined ? '' : `, such as ${example}`}`,
    );
  }
  const range = parseSubnet(subnet.subnet);
  const role = roleOf(value.value, range, address, subnet);
  if (role !== undefined && !(role === 'gateway' && !network.hostAddress)) {
    throw refuse(`it is the ${role} of network "${network.name}"`, 'Choose another one');
  }
  const holder = network.leases[address];
  if (holder !== undefined)
    throw refuse(
      `container ${nameOf(holder)} has it`,
      `Choose another one, or leave ${family === 6 ? '--ip6' : '--ip'} out`,
    );
  return { address, subnet };
}

function roleOf(value: bigint, range: Range, address: string, { gateway, reserved = {} }: Subnet): string | undefined {
  const usable = usableRange(range);
  if (address === gateway) return 'gateway';
  const kept = Object.entries(reserved).find(([, each]) => each === address);
  if (kept !== undefined) return `reserved address "${kept[0]}"`;
  if (value < usable.first) return 'network address';
  return value > usable.last ? 'broadcast address' : undefined;
}
