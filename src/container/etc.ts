import type { Step } from '../host/steps.ts';
import { addressesOf, gatewayEndpoint } from '../network/attach.ts';
import type { Endpoint } from '../network/definition.ts';
import type { Definition } from './definition.ts';
import type { Container } from './store.ts';
import { containerFiles, findId } from './store.ts';
import { textOrEmpty } from '../host/text.ts';

const loopback = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n';

/**
 * Content of the container's /etc/hosts: loopback, `--add-host`, and its own names once its addresses are known.
 * `host-gateway` stands for the host as the container sees it.
 */
export function hostsContent(definition: Definition, hostname: string, endpoints: readonly Endpoint[]): string {
  const gateway = gatewayEndpoint(endpoints, 'ipv4')?.ipv4?.gateway ?? '127.0.0.1';
  const added = definition.addHosts.map(([ip, name]) => `${ip === 'host-gateway' ? gateway : ip}\t${name}\n`).join('');
  const names = [...new Set([hostname, definition.name])].join(' ');
  const own = endpoints.flatMap(addressesOf).map(({ address }) => `${address}\t${names}\n`);
  return loopback + added + own.join('');
}

/** The nameservers that a container can use of a host's resolv.conf: a stub on 127.0.0.53 is not reachable from it. */
export function usableNameservers(resolvConf: string): string[] {
  return resolvConf
    .split('\n')
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1])
    .filter((server): server is string => server !== undefined && !server.startsWith('127.') && server !== '::1');
}

/** The host's resolver files. */
interface HostResolvers {
  resolvConf: string;
  /** systemd-resolved keeps the servers behind its stub in a file of their own. */
  upstream: string;
}

/** Those of the host's name servers that a container can reach. */
export function upstreamServers({ resolvConf, upstream }: HostResolvers): string[] {
  const usable = usableNameservers(resolvConf);
  return usable.length > 0 ? usable : usableNameservers(upstream);
}

/**
 * Content of the container's resolv.conf: `--dns` as given, else the host's servers. Who shares the network of the host, or
 * of another container, has that one's file.
 *
 * @param nameservers name servers of minirun's that take their place: then a name without a dot is a container's, and no
 *   domain is searched for it first (`ndots:0`, as docker has it)
 */
export function resolvConfContent(
  definition: Definition,
  host: HostResolvers,
  nameservers?: readonly string[],
): string {
  const shared = definition.network === 'host' || definition.network.startsWith('container:');
  if (shared && definition.dns.length === 0) return host.resolvConf;
  const servers = nameservers ?? (definition.dns.length > 0 ? definition.dns : upstreamServers(host));
  const lines = host.resolvConf.split('\n').filter((line) => /^\s*(search|options)\b/.test(line));
  const search =
    definition.dnsSearch.length > 0
      ? [`search ${definition.dnsSearch.join(' ')}`]
      : lines.filter((line) => line.includes('search'));
  const options =
    definition.dnsOptions.length > 0
      ? [`options ${definition.dnsOptions.join(' ')}`]
      : lines.filter((line) => line.includes('options'));
  const ndots = nameservers === undefined || options.some((line) => line.includes('ndots:')) ? [] : ['options ndots:0'];
  return [...servers.map((server) => `nameserver ${server}`), ...search, ...options, ...ndots, ''].join('\n');
}

/** Reads the host's resolver files. */
export function hostResolvers(): HostResolvers {
  return { resolvConf: textOrEmpty('/etc/resolv.conf'), upstream: textOrEmpty('/run/systemd/resolve/resolv.conf') };
}

/** The resolver files that a container's are made of: the host's, or those of the container whose network it shares. */
export function resolversFor({ network }: Definition): HostResolvers {
  if (!network.startsWith('container:')) return hostResolvers();
  const id = findId(network.slice('container:'.length));
  return { resolvConf: id === undefined ? '' : textOrEmpty(containerFiles(id).resolvConf), upstream: '' };
}

/** Steps that make the files and folders a container starts with. They go with its folder. */
export function planFiles(
  { definition }: Pick<Container, 'definition'>,
  hostname: string,
  resolvers: HostResolvers,
): Step[] {
  const files = containerFiles(definition.id);
  const step = (id: string, why: string, apply: Step['apply']): Step => ({ id, why, apply, undo: [] });
  const folders = definition.rootfs === undefined ? [files.upper, files.work, files.rootfs] : [];
  return [
    ...(folders.length === 0
      ? []
      : [
          step(
            'rootfs.dirs',
            "What the container writes goes to its own folder; the image's layers below it stay as they are.",
            folders.map((path) => ({ tool: 'mkdir', path, mode: 0o755 })),
          ),
        ]),
    step('etc.files', 'Three files that are mounted over those of the image: names, own name, resolvers.', [
      { tool: 'file', path: files.hosts, content: hostsContent(definition, hostname, []), mode: 0o644 },
      { tool: 'file', path: files.hostname, content: `${hostname}\n`, mode: 0o644 },
      { tool: 'file', path: files.resolvConf, content: resolvConfContent(definition, resolvers), mode: 0o644 },
    ]),
  ];
}
