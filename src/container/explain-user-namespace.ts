import { word } from '../host/script.ts';
import type { Step } from '../host/steps.ts';
import type { Definition } from './definition.ts';
import { idsOf, proposeIds } from './id-ranges.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { raisedLimitsArgv } from './raised-limits.ts';
import { containerFiles, readState } from './store.ts';
import type { IdRange } from './protocol.ts';

/** The holder in a script, as a word of the shell. */
const holderWord = '$holder';

/** A container's user namespace by hand. */
export interface ExplainedUserNamespace {
  /** What is done before anything else: who holds it, and the mounts that are made from outside. */
  steps: Step[];
  /** What the command that starts the container's process begins with, and what the shell does first that it runs. */
  enter: string;
  first: string[];
  /** The mounts, with sources as they are called there. */
  mounts: OciMount[];
}

/**
 * What `staging.ts` and `in-user-namespace.ts` do, with tools. mount(8) can map owners from util-linux 2.39 on.
 *
 * @param netns the network namespace to join; undefined for one of its own
 */
export function explainUserNamespace(
  definition: Definition,
  spec: OciSpec,
  { ownNetwork, netns }: { ownNetwork: boolean; netns?: string },
): ExplainedUserNamespace {
  const { of: other, size } = definition.userns as NonNullable<Definition['userns']>;
  const ids = idsOf(other ?? definition.id) ?? proposeIds(size);
  const place = containerFiles(definition.id).rootfs;
  const userns =
    other === undefined ? `/proc/${holderWord}/ns/user` : `/proc/${readState(other)?.init?.pid ?? 'PID'}/ns/user`;
  const network = netns ?? (ownNetwork ? `/proc/${holderWord}/ns/net` : undefined);
  return {
    steps: [
      holderStep(`${containerFiles(definition.id).directory}/holder`, ids, other === undefined, ownNetwork),
      mountsStep(definition, spec, ids),
    ],
    enter:
      `${raisedLimitsArgv(spec.process.rlimits)
        .map((each) => `${each} `)
        .join(
          '',
        )}nsenter --target ${holderWord} --mount --user=${userns} ${network === undefined ? '' : `--net=${network} `}` +
      `--wd=/proc/${holderWord}/root${word(place)} -- `,
    first: ['mount --rbind rootfs rootfs'],
    mounts: spec.mounts.map((mount, index) =>
      mount.type === 'bind'
        ? { ...mount, source: `../mounts/${index}`, options: ['rbind'] }
        : isDev(mount)
          ? { ...mount, type: 'bind', source: '../dev', options: ['rbind'] }
          : mount,
    ),
  };
}

const isDev = ({ type, destination }: OciMount) => type === 'tmpfs' && destination === '/dev';

function holderStep(file: string, { uid, gid, size }: IdRange, user: boolean, network: boolean): Step {
  const further = user ? `unshare --user ${network ? '--net ' : ''}-- ` : '';
  return {
    id: 'userns',
    why:
      `A user namespace gives ids another meaning: root in it is user ${uid} of the host, who may do nothing there. ` +
      'It lives as long as a process is in it, so one holds it that does nothing else (that of minirun ends as soon as init is in it). Its mounts are its own, for what is mounted next.',
    apply: [
      {
        tool: 'process',
        script: [
          `unshare --mount --propagation slave -- ${further}sleep infinity </dev/null >/dev/null 2>&1 & holder=$!`,
          `echo ${holderWord} >${word(file)}`,
          ...(user
            ? [
                `until [ "$(readlink /proc/${holderWord}/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done`,
                `echo '0 ${uid} ${size}' >/proc/${holderWord}/uid_map`,
                `echo '0 ${gid} ${size}' >/proc/${holderWord}/gid_map`,
              ]
            : [
                `until [ "$(readlink /proc/${holderWord}/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.01; done`,
              ]),
        ].join('\n'),
      },
    ],
    undo: [{ tool: 'process', script: `[ -s ${word(file)} ] && kill "$(cat ${word(file)})"` }],
  };
}

function mountsStep(definition: Definition, spec: OciSpec, { uid, gid, size }: IdRange): Step {
  const { directory, rootfs } = containerFiles(definition.id);
  const map = `X-mount.idmap="u:0:${uid}:${size} g:0:${gid}:${size} b:${size}:0:1"`;
  const lines = [`mount -t tmpfs -o mode=755 staging ${word(rootfs)}`, `cd ${word(rootfs)}`, 'mkdir rootfs mounts'];
  if (definition.rootfs === undefined) {
    const names = definition.layers.map((_, index) => String(index));
    lines.push(`mkdir ${[...names, 'own'].join(' ')}`);
    for (const [index, layer] of definition.layers.entries())
      lines.push(`mount --bind -o ${map} ${word(layer)} ${names[index]}`);
    lines.push(
      `mount --bind -o ${map} ${word(directory)} own`,
      `mount -t overlay -o nodev,lowerdir=${names.join(':')},upperdir=own/upper,workdir=own/work overlay rootfs`,
      `umount -l ${[...names, 'own'].join(' ')}`,
    );
  } else {
    lines.push(`mount --rbind -o ${map} ${word(definition.rootfs)} rootfs`, 'mount -o remount,bind,nodev rootfs');
  }
  for (const [index, mount] of spec.mounts.entries()) {
    const target = `mounts/${index}`;
    if (isDev(mount)) {
      lines.push(
        'mkdir dev',
        `mount -t tmpfs -o ${[...mount.options, `uid=${uid}`, `gid=${gid}`].join(',')} tmpfs dev`,
        ...spec.linux.devices.flatMap(({ path, type, major, minor, fileMode }) => {
          const node = path.slice(1);
          return [
            `mknod -m ${fileMode.toString(8)} ${word(node)} ${type} ${major} ${minor}`,
            `chown ${uid}:${gid} ${word(node)}`,
          ];
        }),
      );
    }
    if (mount.type !== 'bind') continue;
    const flags = mount.options.filter((option) => ['ro', 'nosuid', 'nodev', 'noexec'].includes(option));
    const bind = mount.options.includes('rbind') ? '--rbind' : '--bind';
    lines.push(
      `if [ -d ${word(mount.source)} ]; then mkdir ${target}; else touch ${target}; fi`,
      `mount ${bind} -o ${map} ${word(mount.source)} ${target}`,
      ...(flags.length > 0 ? [`mount -o remount,bind,${flags.join(',')} ${target}`] : []),
    );
  }
  return {
    id: 'userns.mounts',
    why:
      'What root of a user namespace may not mount itself. An idmapped mount shows files with other owners than they have on disk, so that ' +
      'those of the image and of volumes belong to whom they should. mount(8) can do that from util-linux 2.39 on, and an older one does not say that it cannot; minirun needs no tool for it.',
    apply: [
      {
        tool: 'process',
        script: [
          `nsenter --target ${holderWord} --mount sh -e -c '`,
          ...lines.map((line) => `  ${line.replaceAll("'", "'\\''")}`),
          "'",
        ].join('\n'),
      },
    ],
    undo: [],
  };
}
