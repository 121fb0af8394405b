import { MinirunError } from '../errors.ts';
import { canonicalAddress, formatRange, isUnicastMac, parseDestination } from './address.ts';
import { isUsableIfname } from './ifname.ts';
import { type Attachment, defaultNetworkName, type Driver, type Network, type NetworkRoute } from './definition.ts';

/** The network that a name stands for: docker's name for the default one, too. */
export function canonicalNetwork(name: string): string {
  return name === 'default' || name === 'bridge' ? defaultNetworkName : name;
}

/** What of a `network create` is no range. */
interface OptionRequest {
  name: string;
  driver: string;
  internal: boolean;
  isolate: boolean;
  routes: string[];
  options: string[];
}

/** Names of `--opt`: ours, and docker's for the same. */
const optionNames: Record<string, string> = {
  'com.docker.network.bridge.name': 'bridge',
  'com.docker.network.driver.mtu': 'mtu',
  'com.docker.network.bridge.enable_ip_masquerade': 'masquerade',
  'com.docker.network.bridge.enable_icc': 'icc',
  'com.docker.network.bridge.inhibit_ipv4': 'inhibit_ipv4',
};

const known = ['bridge', 'mtu', 'masquerade', 'icc', 'isolate', 'parent', 'inhibit_ipv4'];

/** The driver and the switches of a network as they were typed. @throws MinirunError for what there is not */
export function networkOptions(request: OptionRequest): Partial<Network> & { driver: Driver } {
  const driver = driverOf(request.driver);
  const given = new Map(request.options.map((text) => readOption(text)));
  const bool = (name: string, otherwise: boolean) => {
    const value = given.get(name);
    return value === undefined ? otherwise : boolOf(name, value);
  };
  const wrong =
    given.has('parent') && driver === 'bridge'
      ? 'parent'
      : given.has('bridge') && driver === 'macvlan'
        ? 'bridge'
        : undefined;
  if (wrong !== undefined) {
    throw new MinirunError(
      `invalid --opt ${wrong}`,
      `a ${driver} network has none`,
      driver === 'bridge' ? 'Leave it out, or give --driver macvlan' : 'Give parent=INTERFACE',
    );
  }
  const mtu = given.get('mtu');
  const bridge = driver === 'macvlan' ? (given.get('parent') ?? '') : given.get('bridge');
  return {
    driver,
    internal: request.internal,
    isolate: bool('isolate', request.isolate),
    masquerade: bool('masquerade', true),
    icc: bool('icc', true),
    hostAddress: driver === 'bridge' && !bool('inhibit_ipv4', false),
    routes: request.routes.map(parseNetworkRoute),
    ...(mtu === undefined ? {} : { mtu: mtuOf(mtu) }),
    ...(bridge === undefined ? {} : { bridge }),
  };
}

function driverOf(text: string): Driver {
  if (text === 'bridge' || text === 'macvlan') return text;
  if (text === 'none' || text === 'host') {
    throw new MinirunError(
      `cannot create a network of driver "${text}"`,
      `there is one, which is always there and is called ${text}`,
      `Use it: minirun run --network ${text}`,
    );
  }
  throw new MinirunError(`invalid --driver "${text}"`, 'there is none of that name', 'Give bridge or macvlan');
}

function readOption(text: string): [string, string] {
  const at = text.indexOf('=');
  const name = at < 0 ? text : text.slice(0, at);
  const short = (Object.hasOwn(optionNames, name) ? optionNames[name] : undefined) ?? name;
  if (!known.includes(short))
    throw new MinirunError(`invalid --opt "${text}"`, 'it is not known', `Known are ${known.join(', ')}`);
  return [short, at < 0 ? 'true' : text.slice(at + 1)];
}

function boolOf(name: string, value: string): boolean {
  if (['true', '1'].includes(value)) return true;
  if (['false', '0'].includes(value)) return false;
  throw new MinirunError(`invalid --opt ${name}=${value}`, 'it is neither true nor false', 'Give true or false');
}

/** The least that IPv4 allows and the most that Linux takes. */
function mtuOf(text: string): number {
  const mtu = Number(text);
  if (/^\d+$/.test(text) && mtu >= 68 && mtu <= 65535) return mtu;
  throw new MinirunError(
    `invalid --opt mtu=${text}`,
    'an MTU is a number of bytes from 68 to 65535',
    'For example mtu=1450',
  );
}

/** `DESTINATION,GATEWAY`. */
function parseNetworkRoute(text: string): NetworkRoute {
  const [destination, gateway, ...rest] = text.split(',');
  if (destination === undefined || gateway === undefined || rest.length > 0)
    throw new MinirunError(
      `invalid --route "${text}"`,
      'it is not of the form DESTINATION,GATEWAY',
      'For example 10.9.9.8/30,10.13.37.2',
    );
  return { destination: formatRange(parseDestination(destination)), gateway: canonicalAddress(gateway) };
}

/** What of `run` and `create` is about networks, as it was typed. */
export interface AttachmentRequest {
  network: string[];
  ip?: string;
  ip6?: string;
  macAddress?: string;
  networkAlias: string[];
}

const attachmentFields = [
  'ip',
  'ip6',
  'mac',
  'mac-address',
  'ifname',
  'interface_name',
  'alias',
  'gw_priority',
  'gw-priority',
  'name',
];

/**
 * The networks of a container: `--network NAME[:ip=…,ip6=…,mac=…,ifname=…,alias=…,gw_priority=…]`, docker's
 * `name=NAME,ip=…` too. `--ip`, `--ip6`, `--mac-address` and `--network-alias` are about the first.
 *
 * @param canonical the network that a name stands for: `bridge` is the default one
 */
export function parseAttachments(request: AttachmentRequest, canonical: (name: string) => string): Attachment[] {
  const attachments = request.network.map((text) => parseAttachment(text, canonical));
  const first = attachments[0] as Attachment;
  const one = (option: string, given: string | undefined, own: string | undefined) => {
    if (given !== undefined && own !== undefined)
      throw refused(`${option} ${given}`, `--network names another for ${first.network}`, 'Give it once');
    return given ?? own;
  };
  first.ip = one('--ip', address(request.ip, 4), first.ip);
  first.ip6 = one('--ip6', address(request.ip6, 6), first.ip6);
  first.mac = one('--mac-address', macAddress(request.macAddress), first.mac);
  first.aliases.push(...request.networkAlias.map(alias));
  for (const [index, { network, ifname }] of attachments.entries()) {
    const earlier = attachments.slice(0, index);
    if (earlier.some((each) => each.network === network))
      throw refused(`--network ${network}`, 'it is named twice', 'Name each network once');
    if (ifname !== undefined && earlier.some((each) => each.ifname === ifname))
      throw refused(`ifname=${ifname}`, 'two interfaces cannot have one name', 'Choose another for one of them');
  }
  return attachments;
}

function refused(what: string, why: string, remedy: string): MinirunError {
  return new MinirunError(`invalid ${what}`, why, remedy);
}

function parseAttachment(text: string, canonical: (name: string) => string): Attachment {
  const fields = new Map<string, string[]>();
  let name = text;
  let rest = '';
  if (/^[a-z0-9_-]+=/i.test(text)) [name, rest] = ['', text];
  else if (text.includes(':')) [name, rest] = [text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1)];
  for (const field of rest.split(',').filter(Boolean)) {
    const at = field.indexOf('=');
    const key = field.slice(0, Math.max(at, 0));
    if (!attachmentFields.includes(key))
      throw refused(
        `--network "${text}"`,
        `unknown field "${field}"`,
        'Fields are ip, ip6, mac, ifname, alias, gw_priority',
      );
    fields.set(key, [...(fields.get(key) ?? []), field.slice(at + 1)]);
  }
  const last = (...keys: string[]) => keys.flatMap((key) => fields.get(key) ?? []).at(-1);
  name = last('name') ?? name;
  if (name === '')
    throw refused(`--network "${text}"`, 'it names no network', 'For example --network name=lab,ip=10.20.0.7');
  const priority = last('gw_priority', 'gw-priority') ?? '0';
  if (!/^-?\d{1,9}$/.test(priority))
    throw refused(`gw_priority=${priority}`, 'it is no number', 'The highest number wins; 0 is usual');
  const ifname = last('ifname', 'interface_name');
  if (ifname !== undefined && !isUsableIfname(ifname))
    throw refused(
      `ifname=${ifname}`,
      'an interface cannot be called that',
      'Give at most 15 characters: letters, digits, "_", ".", "@" and "-", but not lo, all or default',
    );
  return {
    network: canonical(name),
    ...optional('ip', address(last('ip'), 4)),
    ...optional('ip6', address(last('ip6'), 6)),
    ...optional('mac', macAddress(last('mac', 'mac-address'))),
    ...optional('ifname', ifname),
    aliases: (fields.get('alias') ?? []).map(alias),
    gatewayPriority: Number(priority),
  };
}

function optional<K extends string>(key: K, value: string | undefined): { [key in K]?: string } {
  return (value === undefined ? {} : { [key]: value }) as { [key in K]?: string };
}

function address(text: string | undefined, family: 4 | 6): string | undefined {
  return text === undefined ? undefined : canonicalAddress(text, family);
}

/** A unicast MAC address. @throws MinirunError for others: a bridge would flood what is sent to a group address */
export function macAddress(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const mac = text.toLowerCase().replaceAll('-', ':');
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(mac))
    throw refused(
      `MAC address "${text}"`,
      'it is not six pairs of hexadecimal digits',
      'For example 02:42:0a:5a:00:07',
    );
  if (!isUnicastMac(mac))
    throw refused(`MAC address "${text}"`, 'no single interface can have it', 'Let it begin with 02');
  return mac;
}

/** A name under which others find a container: one label of DNS, or several. */
function alias(text: string): string {
  if (/^[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?$/.test(text)) return text;
  throw refused(`alias "${text}"`, 'a name has letters, digits, "_", "-" and "."', 'Choose such a name');
}
