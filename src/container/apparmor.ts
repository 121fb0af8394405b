import fs from 'node:fs';
import { MinirunError } from '../errors.ts';
import { applySteps } from '../host/executor.ts';
import { which } from '../host/launch.ts';
import type { Section } from '../host/script.ts';
import type { Step } from '../host/steps.ts';
import { stateRoot } from '../state/paths.ts';

/** The profile of containers for which nothing else was asked. */
const defaultProfile = 'minirun-default';

/** The kernel's files about AppArmor; all below `/`, but for tests. */
const places = {
  securityfs: '/sys/kernel/security/apparmor',
  /** A profile a line: `NAME (enforce)`. */
  loaded: '/sys/kernel/security/apparmor/profiles',
  enabled: '/sys/module/apparmor/parameters/enabled',
  own: '/proc/self/attr/current',
  /** The files that profiles include. */
  includes: '/etc/apparmor.d',
};

/** Whether programs of this machine are confined by AppArmor. Where they are not this costs one look for a file. */
export function hasApparmor({ securityfs, enabled } = places): boolean {
  if (!fs.existsSync(securityfs)) return false;
  try {
    return fs.readFileSync(enabled, 'latin1').startsWith('Y');
  } catch {
    return false;
  }
}

/** The names in the kernel's list of profiles. Empty when it may not be read. */
export function loadedProfiles(file = places.loaded): string[] {
  try {
    return fs
      .readFileSync(file, 'utf8')
      .split('\n')
      .map((line) => line.replace(/ \([a-z]+\)$/, ''))
      .filter((name) => name !== '');
  } catch {
    return [];
  }
}

/** What of the host the text of the default profile depends on. */
export interface ProfileFacts {
  /** Files that exist below /etc/apparmor.d. */
  includes: ReadonlySet<string>;
  /** The profile that minirun itself runs under: `unconfined` as a rule. */
  own: string;
}

const includable = ['abi/3.0', 'tunables/global', 'abstractions/base'];

function readFacts({ own, includes } = places): ProfileFacts {
  let label = 'unconfined';
  try {
    label =
      fs
        .readFileSync(own, 'latin1')
        .replace(/ \([a-z]+\)\s*$/, '')
        .trim() || label;
  } catch {
    // Nobody confines this process, then.
  }
  return {
    includes: new Set(includable.filter((name) => fs.existsSync(`${includes}/${name}`))),
    own: label,
  };
}

/**
 * The default profile: what a container's root may do anyway, without the ways out that capabilities, masks and read-only
 * mounts bar as well. It is the second lock on those doors, and the only one on sockets of some families that 32-bit
 * programs make through socketcall(2).
 */
export function profileText({ includes, own }: ProfileFacts): string {
  const include = (name: string, line = `#include <${name}>`) => (includes.has(name) ? [line] : []);
  const signals = [...new Set(['unconfined', own])].map((peer) => `  signal (receive) peer=${quoted(peer)},`);
  return [
    `# ${defaultProfile}: for containers. Written and loaded by minirun; a change here is lost.`,
    // In a later ABI `network` has no Unix sockets in it.
    ...include('abi/3.0', 'abi <abi/3.0>,'),
    ...(includes.has('tunables/global') ? ['#include <tunables/global>'] : ['@{PROC}=/proc/']),
    '',
    `profile ${defaultProfile} flags=(attach_disconnected,mediate_deleted) {`,
    ...include('abstractions/base', '  #include <abstractions/base>'),
    '  network,',
    '  deny network alg,',
    '  deny network vsock,',
    '  capability,',
    '  file,',
    '  umount,',
    '',
    "  # From the machine (stop, kill), and among the container's own processes.",
    ...signals,
    `  signal (send,receive) peer=${defaultProfile},`,
    `  ptrace (trace,read,tracedby,readby) peer=${defaultProfile},`,
    '',
    '  deny mount,',
    '',
    '  # Of /proc only its own processes, and shared memory of its ipc namespace.',
    '  deny @{PROC}/* w,',
    '  deny @{PROC}/[^1-9s]*/** w,',
    '  deny @{PROC}/s{[^ey]*,ys[^/]*}/** w,',
    '  deny @{PROC}/sys/[^k]** w,',
    '  deny @{PROC}/sys/kernel/{[^s]**,s[^h]**,sh[^m]**} w,',
    '  deny @{PROC}/sysrq-trigger rwklx,',
    '  deny @{PROC}/kcore rwklx,',
    '',
    '  # Of /sys only its cgroups.',
    '  deny /sys/{[^f]*,f[^s]*}/** wklx,',
    '  deny /sys/fs/{[^c]*,c[^g]*,cg[^r]*}/** wklx,',
    '  deny /sys/firmware/** rwklx,',
    '  deny /sys/devices/virtual/powercap/** rwklx,',
    '  deny /sys/kernel/security/** rwklx,',
    '}',
    '',
  ].join('\n');
}

function quoted(name: string): string {
  return /^[\w./-]+$/.test(name) ? name : `"${name.replaceAll('"', '')}"`;
}

/** The step that loads the default profile, for all containers until the next boot. */
export function planProfile(file: string, facts: ProfileFacts): Step {
  return {
    id: 'apparmor.load',
    why: `AppArmor confines programs by profiles that the kernel knows by name. This one, ${defaultProfile}, is for containers; it stays until the machine boots (apparmor_parser -R ${file} takes it away).`,
    apply: [
      { tool: 'file', path: file, content: profileText(facts), mode: 0o644 },
      // -K: nothing is cached below /etc or /var, which may be read-only.
      { tool: 'run', argv: ['apparmor_parser', '--skip-cache', '--replace', file] },
    ],
    undo: [],
  };
}

const profileFile = () => `${stateRoot()}/apparmor-${defaultProfile}`;

/** What `--security-opt apparmor=NAME` asks for must be there. @throws MinirunError */
export function checkProfile(name: string): void {
  if (name === 'unconfined') return;
  if (!hasApparmor()) {
    throw new MinirunError(
      `cannot confine the container by AppArmor profile "${name}"`,
      'AppArmor is not enabled on this machine',
      'Leave --security-opt apparmor out',
      { code: 125 },
    );
  }
  if (loadedProfiles().includes(name) || (name === defaultProfile && canLoad())) return;
  throw new MinirunError(
    `cannot confine the container by AppArmor profile "${name}"`,
    name === defaultProfile
      ? 'it is not loaded, and this machine has no apparmor_parser that could load it'
      : 'no profile of that name is loaded',
    name === defaultProfile ? 'Install it: apt-get install apparmor' : 'Load it: apparmor_parser -r FILE',
    { code: 125 },
  );
}

function canLoad(): boolean {
  return process.getuid?.() === 0 && which('apparmor_parser') !== undefined;
}

/** Steps without which the default profile is not loaded, or not as this minirun has it. */
function planDefault(): { steps: Step[]; available: boolean } {
  const loaded = loadedProfiles().includes(defaultProfile);
  if (!canLoad()) return { steps: [], available: loaded };
  const file = profileFile();
  const facts = readFacts();
  if (loaded && isWritten(file, profileText(facts))) return { steps: [], available: true };
  return { steps: [planProfile(file, facts)], available: true };
}

function isWritten(file: string, text: string): boolean {
  try {
    return fs.readFileSync(file, 'utf8') === text;
  } catch {
    return false;
  }
}

/**
 * The profile under which a container's process is to run, loaded if need be; undefined for none: on a machine without
 * AppArmor, for a privileged container, and, as docker has it, where the default profile cannot be loaded for want of
 * apparmor_parser.
 *
 * @param asked of the spec: a name, `unconfined`, or nothing in particular
 * @throws MinirunError when the profile that was asked for is not there (any more), or does not load
 */
export async function confinement(asked: string | undefined, privileged: boolean): Promise<string | undefined> {
  if (asked === 'unconfined') return undefined;
  if (asked === undefined && (privileged || !hasApparmor())) return undefined;
  if (asked !== undefined) checkProfile(asked);
  if (asked !== undefined && asked !== defaultProfile) return asked;
  const { steps, available } = planDefault();
  if (!available) return undefined;
  await applySteps(steps).catch((error: Error) => {
    throw new MinirunError(
      `cannot load the AppArmor profile ${defaultProfile}`,
      error.message,
      'Repair AppArmor (aa-status), or run with --security-opt apparmor=unconfined',
      { code: 125, cause: error },
    );
  });
  return defaultProfile;
}

/** The profile for a process that `exec` adds: as at the start, but nothing is loaded for it. */
export function confinementOfExec(asked: string | undefined, privileged: boolean): string | undefined {
  if (asked === 'unconfined' || privileged) return undefined;
  if (asked !== undefined) return asked;
  return hasApparmor() && loadedProfiles().includes(defaultProfile) ? defaultProfile : undefined;
}

/** What a container's start would do about AppArmor, for `--explain`. */
export function explainConfinement(
  asked: string | undefined,
  privileged: boolean,
): { profile?: string; sections: Section[] } {
  if (asked === 'unconfined' || (asked === undefined && (privileged || !hasApparmor()))) return { sections: [] };
  if (asked !== undefined && asked !== defaultProfile) return { profile: asked, sections: [] };
  const { available } = planDefault();
  if (!available) return { sections: [] };
  const sections = canLoad()
    ? [
        {
          title: 'AppArmor profile of all containers',
          steps: [planProfile(profileFile(), readFacts())],
          shared: { present: `grep -q '^${defaultProfile} ' ${places.loaded}`, used: 'true' },
        },
      ]
    : [];
  return { profile: defaultProfile, sections };
}
