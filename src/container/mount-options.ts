import path from 'node:path';
import type { MinirunError } from '../errors.ts';
import type { OciMount } from './oci.ts';
import { invalid } from './options.ts';
import { usualShmSize } from './spec.ts';

/** A mount as the user wants it. `volume` is one whose source, where it is not empty, is the name of a volume. */
export interface WantedMount extends OciMount {
  type: 'bind' | 'volume' | 'tmpfs';
  /** Of a volume that this use makes. */
  make?: { options: Record<string, string>; labels: Record<string, string> };
}

/** Docker's rule for names of volumes, and no more than a name of a file may have beside what minirun adds to it. */
const volumeName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** @throws MinirunError for what no volume can be called */
export function checkVolumeName(name: string, option = 'volume name', text = name): string {
  if (volumeName.test(name) && name.length <= 200) return name;
  throw invalid(
    option,
    text,
    `"${name}" is no name of a volume: letters, digits, "_", "." and "-", at least two, the first a letter or a digit`,
    'Choose such a name; a directory of the host begins with / or ./',
  );
}

/** An absolute, clean path in the container. */
function placeOf(option: string, text: string, place: string): string {
  if (!path.isAbsolute(place))
    throw invalid(
      option,
      text,
      `${place || 'the place in the container'} is not an absolute path`,
      'Give a path that begins with /',
    );
  const clean = path.normalize(place).replace(/(.)\/$/, '$1');
  if (clean === '/')
    throw invalid(option, text, 'nothing can be mounted on the root of the container', 'Name a directory in it');
  return clean;
}

/** What is said of a mount, and what goes into its options. Of each group one can be given. */
const modes: Record<string, { group: string; option?: string; only?: 'bind' | 'volume' }> = {
  rw: { group: 'access' },
  ro: { group: 'access', option: 'rro' },
  // Labels for SELinux and hints for Docker Desktop: nothing comes of them here.
  z: { group: 'label' },
  Z: { group: 'label' },
  cached: { group: 'consistency' },
  delegated: { group: 'consistency' },
  consistent: { group: 'consistency' },
  ...Object.fromEntries(
    ['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared'].map((option) => [
      option,
      { group: 'propagation', option, only: 'bind' as const },
    ]),
  ),
  rbind: { group: 'recursion', only: 'bind' },
  bind: { group: 'recursion', option: 'bind', only: 'bind' },
  dev: { group: 'dev', option: 'dev' },
  nodev: { group: 'dev', option: 'rnodev' },
  exec: { group: 'exec' },
  noexec: { group: 'exec', option: 'rnoexec' },
  suid: { group: 'suid' },
  nosuid: { group: 'suid', option: 'rnosuid' },
  nocopy: { group: 'copy', option: 'nocopy', only: 'volume' },
};

function parseModes(text: string, list: string, type: 'bind' | 'volume'): string[] {
  const seen = new Map<string, string>();
  return list
    .split(',')
    .filter((name) => name !== '')
    .flatMap((name) => {
      const mode = Object.hasOwn(modes, name) ? modes[name] : undefined;
      if (mode === undefined)
        throw invalid('-v', text, `unknown mode "${name}"`, 'Give ro or rw, or see docs/volumes.md for the others');
      if (mode.only !== undefined && mode.only !== type)
        throw invalid(
          '-v',
          text,
          `${name} is for ${mode.only === 'bind' ? 'directories of the host' : 'volumes'}`,
          'Leave it out',
        );
      const other = seen.get(mode.group);
      if (other !== undefined && other !== name)
        throw invalid('-v', text, `${other} and ${name} exclude each other`, 'Leave one of them out');
      seen.set(mode.group, name);
      return mode.option ?? [];
    });
}

/**
 * `-v SOURCE:TARGET[:MODE,…]`, a bind mount; `-v NAME:TARGET[:MODE,…]`, a volume of that name; `-v TARGET`, a volume
 * without a name. Relative sources count from `directory`.
 */
export function parseVolume(text: string, directory: string): WantedMount {
  const [source = '', destination, list = '', ...rest] = text.split(':');
  if (destination === undefined && source !== '') return volumeMount(placeOf('-v', text, source), []);
  if (destination === undefined || source === '' || rest.length > 0) {
    throw invalid(
      '-v',
      text,
      'it is not of the form SOURCE:TARGET[:MODE]',
      'Name a directory of the host, or a volume: -v /data:/data',
    );
  }
  const type = /^[./~]/.test(source) ? 'bind' : 'volume';
  if (type === 'volume') checkVolumeName(source, '-v', text);
  const place = placeOf('-v', text, destination);
  const options = parseModes(text, list, type);
  return type === 'bind'
    ? bindMount(path.resolve(directory, source), place, options)
    : volumeMount(place, options, source);
}

function bindMount(source: string, destination: string, options: readonly string[]): WantedMount {
  const has = (pattern: RegExp) => options.some((option) => pattern.test(option));
  const recursion = has(/^bind$/) ? [] : ['rbind'];
  const propagation = has(/^r?(private|slave|shared)$/) ? [] : ['rprivate'];
  return { destination, type: 'bind', source, options: [...recursion, ...propagation, ...options] };
}

/**
 * A volume, which is made with the container where it is missing and filled from the image where it is empty.
 *
 * @param options `nocopy`: it is not filled
 * @param name empty for a volume that belongs to its container
 */
export function volumeMount(destination: string, options: readonly string[], name = ''): WantedMount {
  return { destination, type: 'volume', source: name, options: ['rbind', 'rprivate', ...options] };
}

/** The fields of a line of comma-separated values; a field in double quotes may hold commas. */
function fieldsOf(text: string): string[] {
  const fields = text.match(/"(?:[^"]|"")*"|[^,]+/g) ?? [];
  return fields.map((field) => (field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field));
}

/** What is left to be read of a `--mount`. */
class Fields {
  private readonly left: { key: string; value: string | undefined }[];

  constructor(readonly text: string) {
    this.left = fieldsOf(text).map((field) => {
      const at = field.indexOf('=');
      return at < 0 ? { key: field, value: undefined } : { key: field.slice(0, at), value: field.slice(at + 1) };
    });
  }

  invalid(why: string, remedy: string): MinirunError {
    return invalid('--mount', this.text, why, remedy);
  }

  all(...names: string[]): string[] {
    const found: string[] = [];
    for (let index = 0; index < this.left.length; ) {
      const { key, value } = this.left[index] as { key: string; value: string | undefined };
      if (names.includes(key)) {
        found.push(value ?? '');
        this.left.splice(index, 1);
      } else index++;
    }
    return found;
  }

  one(...names: string[]): string | undefined {
    return this.all(...names).at(-1);
  }

  /** `key`, `key=true`, `key=1` and their opposites. */
  flag(...names: string[]): boolean {
    const value = this.one(...names);
    if (value === undefined || ['false', '0'].includes(value)) return false;
    if (['', 'true', '1'].includes(value)) return true;
    throw this.invalid(
      `${names[0]} is true or false, not "${value}"`,
      `Add ${names[0]} without a value, or leave it out`,
    );
  }

  end(): void {
    const { key } = this.left[0] ?? {};
    if (key === undefined) return;
    throw this.invalid(
      `unknown field "${key}"`,
      'Fields are type, source, target, readonly, for bind: bind-propagation, bind-recursive, bind-nonrecursive; for volume: volume-nocopy, volume-subpath, volume-opt, volume-label, volume-driver; for tmpfs: tmpfs-size, tmpfs-mode',
    );
  }
}

/**
 * `--mount type=bind,source=…,target=…`, `type=volume[,source=NAME],target=…` (the type is volume when none is given) and
 * `type=tmpfs,target=…`, with docker's fields.
 */
export function parseMount(text: string, directory: string): WantedMount {
  const fields = new Fields(text);
  const type = fields.one('type') ?? 'volume';
  const destination = placeOf('--mount', text, fields.one('target', 'destination', 'dst') ?? '');
  const readonly = fields.flag('readonly', 'ro');
  // A hint for Docker Desktop.
  fields.one('consistency');
  const mount = {
    bind: () => bindOf(fields, destination, readonly, directory),
    volume: () => volumeOf(fields, destination, readonly),
    tmpfs: () => tmpfsOf(fields, destination, readonly),
  }[type];
  if (mount === undefined)
    throw fields.invalid(`there are no mounts of type ${type}`, 'Give type=bind, type=volume or type=tmpfs');
  const parsed = mount();
  fields.end();
  return parsed;
}

function bindOf(fields: Fields, destination: string, readonly: boolean, directory: string): WantedMount {
  const source = fields.one('source', 'src');
  if (!source) throw fields.invalid('a bind mount needs a source', 'Add source=DIRECTORY');
  const propagation = fields.one('bind-propagation');
  if (propagation !== undefined && !/^r?(private|slave|shared)$/.test(propagation)) {
    throw fields.invalid(
      `unknown bind-propagation "${propagation}"`,
      'Give rprivate, private, rslave, slave, rshared or shared',
    );
  }
  const recursive = fields.flag('bind-nonrecursive') ? 'disabled' : (fields.one('bind-recursive') ?? 'enabled');
  if (!['enabled', 'disabled', 'writable', 'readonly'].includes(recursive))
    throw fields.invalid(`unknown bind-recursive "${recursive}"`, 'Give enabled, disabled, writable or readonly');
  if (recursive === 'readonly' && (!readonly || (propagation ?? 'rprivate') !== 'rprivate'))
    throw fields.invalid(
      'bind-recursive=readonly is for what is read-only and private',
      'Add readonly, and leave bind-propagation out',
    );
  const access = recursive === 'writable' || recursive === 'disabled' ? 'ro' : 'rro';
  return bindMount(path.resolve(directory, source), destination, [
    ...(recursive === 'disabled' ? ['bind'] : []),
    ...(propagation === undefined ? [] : [propagation]),
    ...(readonly ? [access] : []),
  ]);
}

function volumeOf(fields: Fields, destination: string, readonly: boolean): WantedMount {
  const name = fields.one('source', 'src') ?? '';
  if (name !== '') checkVolumeName(name, '--mount', fields.text);
  const driver = fields.one('volume-driver') ?? 'local';
  if (driver !== 'local' && driver !== '')
    throw fields.invalid(`there is no volume driver "${driver}"`, 'Leave volume-driver out: there is local only');
  const nocopy = fields.flag('volume-nocopy');
  const subpath = fields.one('volume-subpath');
  if (subpath !== undefined && (name === '' || path.isAbsolute(subpath) || subpath.split('/').includes('..')))
    throw fields.invalid(
      name === ''
        ? 'a volume without a name has nothing in it yet'
        : 'volume-subpath is a path below the volume’s root',
      'Give source=NAME and a volume-subpath without a / before it and without ..',
    );
  const make = {
    options: Object.fromEntries(fields.all('volume-opt').map((option) => pairOf(fields, 'volume-opt', option))),
    labels: Object.fromEntries(fields.all('volume-label').map((label) => pairOf(fields, 'volume-label', label))),
  };
  const isPlain = Object.keys(make.options).length + Object.keys(make.labels).length === 0;
  if (!isPlain && name === '')
    throw fields.invalid('options and labels are for volumes with a name', 'Add source=NAME');
  const mount = volumeMount(
    destination,
    [...(readonly ? ['rro'] : []), ...(nocopy || subpath !== undefined ? ['nocopy'] : [])],
    name,
  );
  return {
    ...mount,
    ...(subpath === undefined ? {} : { subpath: path.normalize(subpath) }),
    ...(isPlain ? {} : { make }),
  };
}

function pairOf(fields: Fields, field: string, text: string): [string, string] {
  const at = text.indexOf('=');
  if (text === '' || at === 0) throw fields.invalid(`${field} needs a key`, `Write ${field}=KEY=VALUE`);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

function tmpfsOf(fields: Fields, destination: string, readonly: boolean): WantedMount {
  const size = fields.one('tmpfs-size');
  const mode = fields.one('tmpfs-mode');
  return tmpfsMount('--mount', fields.text, destination, [
    ...(readonly ? ['ro'] : []),
    ...(size ? [`size=${size}`] : []),
    ...(mode ? [`mode=${mode}`] : []),
  ]);
}

const tmpfsFlags = /^(?:rw|ro|(?:no)?(?:suid|dev|exec)|noatime|relatime|strictatime|defaults)$/;
const tmpfsValues: Record<string, RegExp> = {
  size: /^\d+(?:[kKmMgG%]|[kKmMgG]?[bB])?$/,
  nr_blocks: /^\d+[kKmMgG]?$/,
  nr_inodes: /^\d+[kKmMgG]?$/,
  mode: /^0?[0-7]{1,4}$/,
  uid: /^\d{1,10}$/,
  gid: /^\d{1,10}$/,
  mpol: /^[\w:=,-]+$/,
  huge: /^(?:never|always|within_size|advise)$/,
};

/** Options of a tmpfs, each checked; `8mb` is written as tmpfs(5) wants it, `8m`. */
export function tmpfsOptions(option: string, text: string, given: readonly string[]): string[] {
  return given.map((each) => {
    if (tmpfsFlags.test(each)) return each;
    const at = each.indexOf('=');
    const key = at < 0 ? each : each.slice(0, at);
    const value = at < 0 ? '' : each.slice(at + 1);
    const pattern = Object.hasOwn(tmpfsValues, key) ? tmpfsValues[key] : undefined;
    if (pattern === undefined)
      throw invalid(
        option,
        text,
        `tmpfs does not take "${each}"`,
        `Options are ${Object.keys(tmpfsValues).join(', ')}, ro, exec, suid, dev and their opposites`,
      );
    if (!pattern.test(value))
      throw invalid(option, text, `${key} cannot be "${value}"`, 'For example size=64m, mode=1770, uid=1000');
    return `${key}=${key === 'size' ? value.replace(/[bB]$/, '') : value}`;
  });
}

function tmpfsMount(option: string, text: string, destination: string, given: readonly string[]): WantedMount {
  const lifted: Record<string, string> = { exec: 'noexec', suid: 'nosuid', dev: 'nodev' };
  const usual = ['nosuid', 'nodev', 'noexec'].filter((each) => !given.some((other) => lifted[other] === each));
  const options = [...new Set([...usual, ...tmpfsOptions(option, text, given)])];
  return { destination, type: 'tmpfs', source: 'tmpfs', options };
}

/** `--tmpfs TARGET[:OPTIONS]`, options as mount(8) takes them; `exec` lifts the default noexec. */
export function parseTmpfs(text: string): WantedMount {
  const [destination = '', ...options] = text.split(':');
  const given = options.join(':').split(',').filter(Boolean);
  return tmpfsMount('--tmpfs', text, placeOf('--tmpfs', text, destination), given);
}

const units: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50 };

/** `--shm-size`: bytes, or a number with k, m or g, as docker takes them. 0 is the usual 64 MiB. */
export function parseShmSize(text: string): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s?([kmgtp]?)(?:i?b)?$/i.exec(text) ?? [];
  const bytes = Math.floor(Number(number) * (units[unit.toLowerCase()] as number));
  if (number === '' || !Number.isSafeInteger(bytes))
    throw invalid('--shm-size', text, 'it is no size', 'For example 256m or 1g');
  return bytes === 0 ? usualShmSize : bytes;
}

/** `--device HOST[:CONTAINER[:PERMISSIONS]]`. */
export function parseDevice(text: string): { host: string; container: string } {
  const [host = '', second = '', third, ...rest] = text.split(':');
  // Docker: what looks like permissions is none of a path.
  const [container, permissions] =
    third === undefined && /^[rwm]{1,3}$/.test(second) ? [host, second] : [second || host, third ?? 'rwm'];
  if (!path.isAbsolute(host) || rest.length > 0)
    throw invalid(
      '--device',
      text,
      'it is not of the form HOST[:CONTAINER[:rwm]]',
      'For example --device /dev/fuse or --device /dev/sdb:/dev/disk',
    );
  if (!/^[rwm]{1,3}$/.test(permissions) || new Set(permissions).size !== permissions.length)
    throw invalid('--device', text, `"${permissions}" are no permissions`, 'Leave them out, or give rwm');
  if (!permissions.includes('r') || !permissions.includes('w'))
    throw invalid(
      '--device',
      text,
      `minirun makes no device cgroup, which alone could hold the container to "${permissions}"`,
      'Give rw, or let the mode and the owner of the device decide, with -u for the user',
    );
  return { host: path.normalize(host), container: placeOf('--device', text, container) };
}

/** Whether nothing can be written there: with `rro` also not to what is mounted below. */
export function isReadonly({ options }: Pick<OciMount, 'options'>): boolean {
  return options.includes('ro') || options.includes('rro');
}
