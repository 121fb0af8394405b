/** What a command needs of the outside. */
interface Needs {
  uplink: boolean;
  /** Its container has no network, so it misses no way out. */
  isolated: boolean;
  ports: boolean;
  /** It speaks to registries, this machine's own at localhost included, and touches no network inside. */
  hostNetwork: boolean;
}

const online = new Set(['run', 'create', 'start', 'restart', 'network', 'link', 'route', 'trace']);
const toRegistries = new Set(['pull', 'push', 'login']);

/** Told by its words, before anybody has parsed them: what is too much does no harm. Pure. */
export function needsOf([name = '', ...rest]: readonly string[]): Needs {
  const words = ` ${rest.join(' ')}`;
  return {
    uplink: online.has(name),
    isolated: / --net(work)?[= ]none\b/.test(words),
    ports: name === 'start' || name === 'restart' || / (-\w*[pP]|--publish)/.test(words),
    hostNetwork: toRegistries.has(name) || (name === 'image' && toRegistries.has(rest[0] ?? '')),
  };
}
