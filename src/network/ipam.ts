import { MinirunError } from '../errors.ts';
import { contains, formatAddress, parseAddress, parseSubnet } from './address.ts';
import type { Network } from './definition.ts';

type Pool = Pick<Network, 'name' | 'subnet' | 'gateway' | 'leases' | 'last'>;

/**
 * Gives an address of the network to a container, in memory: the caller holds the lock and writes the file. Looks
 * for a free one after the last that was handed out, so that an address is not reused while peers remember its MAC.
 *
 * @throws MinirunError when the pool is used up, or the wanted address is outside it, reserved or taken
 */
export function allocate(network: Pool, container: string, wanted?: string): string {
  const address = wanted === undefined ? nextFree(network) : checked(network, wanted);
  network.leases[address] = container;
  if (wanted === undefined) network.last = address;
  return address;
}

/** Gives an address back, if that container has it. */
export function release(network: Pick<Network, 'leases'>, container: string, address: string): void {
  if (network.leases[address] === container) delete network.leases[address];
}

function nextFree(network: Pool): string {
  const { first, last } = parseSubnet(network.subnet);
  const gateway = parseAddress(network.gateway);
  const size = last - first - 1;
  const start = network.last === undefined ? first : parseAddress(network.last);
  for (let step = 1; step <= size; step++) {
    const candidate = first + 1 + ((start - first - 1 + step + size) % size);
    if (candidate === gateway) continue;
    const address = formatAddress(candidate);
    if (network.leases[address] === undefined) return address;
  }
  throw new MinirunError(
    `no address left in network "${network.name}"`,
    `all of ${network.subnet} is in use`,
    'Remove containers (minirun rm), or use a network with a larger subnet',
  );
}

function checked(network: Pool, wanted: string): string {
  const value = parseAddress(wanted);
  const range = parseSubnet(network.subnet);
  const address = formatAddress(value);
  if (!contains(range, value)) {
    throw new MinirunError(
      `cannot use address ${address}`,
      `it is outside ${network.subnet}, the subnet of network "${network.name}"`,
      `Choose one from that subnet, such as ${formatAddress(range.first + 7)}`,
    );
  }
  if (value === range.first || value === range.last || address === network.gateway) {
    const role =
      address === network.gateway ? 'gateway' : value === range.first ? 'network address' : 'broadcast address';
    throw new MinirunError(
      `cannot use address ${address}`,
      `it is the ${role} of network "${network.name}"`,
      'Choose another one',
    );
  }
  const holder = network.leases[address];
  if (holder !== undefined) {
    throw new MinirunError(
      `cannot use address ${address}`,
      `container ${holder.slice(0, 12)} has it`,
      'Choose another one, or leave --ip out',
    );
  }
  return address;
}
