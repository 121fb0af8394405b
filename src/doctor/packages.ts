import { which } from '../host/launch.ts';
import { isRoot } from './check.ts';

/** How the package managers of the common distributions install a package. */
const managers = {
  'apt-get': 'apt-get install',
  dnf: 'dnf install',
  apk: 'apk add',
  pacman: 'pacman -S',
  zypper: 'zypper install',
} as const;

type Manager = keyof typeof managers;

/** What brings a tool, by package manager; the same lists as in `bin/setup`. No entry: it has none. */
const packages = {
  ip: { 'apt-get': 'iproute2', dnf: 'iproute', apk: 'iproute2', pacman: 'iproute2', zypper: 'iproute2' },
  unshare: {
    'apt-get': 'util-linux',
    dnf: 'util-linux',
    apk: 'util-linux',
    pacman: 'util-linux',
    zypper: 'util-linux',
  },
  iptables: { 'apt-get': 'iptables', dnf: 'iptables-nft', apk: 'iptables', pacman: 'iptables', zypper: 'iptables' },
  busybox: {
    'apt-get': 'busybox-static',
    dnf: 'busybox',
    apk: 'busybox-static',
    pacman: 'busybox',
    zypper: 'busybox-static',
  },
  conntrack: {
    'apt-get': 'conntrack',
    dnf: 'conntrack-tools',
    apk: 'conntrack-tools',
    pacman: 'conntrack-tools',
    zypper: 'conntrack-tools',
  },
  dnsmasq: { 'apt-get': 'dnsmasq-base', dnf: 'dnsmasq', apk: 'dnsmasq', pacman: 'dnsmasq', zypper: 'dnsmasq' },
  newuidmap: { 'apt-get': 'uidmap', dnf: 'shadow-utils', apk: 'shadow-uidmap', pacman: 'shadow', zypper: 'shadow' },
  pasta: { 'apt-get': 'passt', dnf: 'passt', apk: 'passt', pacman: 'passt', zypper: 'passt' },
  slirp4netns: {
    'apt-get': 'slirp4netns',
    dnf: 'slirp4netns',
    apk: 'slirp4netns',
    pacman: 'slirp4netns',
    zypper: 'slirp4netns',
  },
  's6-log': { 'apt-get': 's6', apk: 's6', pacman: 's6' },
  tini: { 'apt-get': 'tini', dnf: 'tini-static', apk: 'tini-static', pacman: 'tini', zypper: 'tini' },
  tar: { 'apt-get': 'tar', dnf: 'tar', apk: 'tar', pacman: 'tar', zypper: 'tar' },
} satisfies Record<string, Partial<Record<Manager, string>>>;

/** The command that installs what brings a tool, for this machine's package manager; words where it has none. */
export function installCommand(tool: keyof typeof packages): string {
  const manager = (Object.keys(managers) as Manager[]).find((name) => which(name) !== undefined);
  const names: Partial<Record<Manager, string>> = packages[tool];
  if (manager === undefined) return `install ${names['apt-get'] ?? tool} (Debian's name) with your package manager`;
  const name = names[manager];
  if (name === undefined) return `install ${tool} from its source: ${manager} has no package of it`;
  return asRoot(`${managers[manager]} ${name}`);
}

/** A command that needs root, as this user has to type it. */
export function asRoot(command: string): string {
  return isRoot() ? command : `sudo ${command}`;
}
