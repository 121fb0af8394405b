import { sysctlFile } from '../host/executor.ts';
import { renderScript, type Section, word } from '../host/script.ts';
import type { Step } from '../host/steps.ts';
import type { Part } from '../host/cgroup/hierarchies.ts';
import { endpointOf, nextIfname } from '../network/attach.ts';
import { type Attachment, defaultNetworkName, type Endpoint, type Network } from '../network/definition.ts';
import { sharedNetworkSection } from '../network/explain.ts';
import { defaultMtu, hasIpv6 } from '../network/facts.ts';
import { allocate } from '../network/ipam.ts';
import { planConnection } from '../network/lifecycle.ts';
import { isUp, newDefaultNetwork, readNetwork, requireNetwork } from '../network/store.ts';
import { linksOf } from '../network/link-store.ts';
import { nameOfContainer } from '../state/names.ts';
import { paths } from '../state/paths.ts';
import { explainConfinement } from './apparmor.ts';
import { capabilityNames } from './capabilities.ts';
import type { Draft } from './create.ts';
import type { ExplainedUserNamespace } from './explain-user-namespace.ts';
import type { Definition, Volume } from './definition.ts';
import { hostsContent, planFiles, resolversFor } from './etc.ts';
import { checksStep, planChecks } from './health-checks.ts';
import { type Place, planContainerNames } from './names.ts';
import { namespaceName, networkOf } from './networking.ts';
import type { OciMount, OciSpec } from './oci.ts';
import { isPropagated } from './propagation.ts';
import { planPublished, portRequests, proposeFor } from './publish.ts';
import { interfaceSysctls } from './spec.ts';
import { containerFiles, readSpec, readSteps, requireContainer } from './store.ts';
import { volumeData } from './volume-store.ts';

/** `run --explain`: everything that running the draft would do, without doing any of it. */
export async function explainRun(draft: Draft, detach: boolean): Promise<string> {
  const { definition, spec } = draft;
  const place = networkOf(definition);
  const attached = place.kind === 'own' ? attach(place.attachments, definition.id) : [];
  const endpoints = attached.map(({ endpoint }) => endpoint);
  const published =
    portRequests(definition).length === 0 ? [] : planPublished(await proposeFor(definition, endpoints), endpoints);
  const names = planContainerNames(definition, spec.hostname, namespaceName(definition), attached);
  const user = await userNamespaceOf(draft);
  const limits =
    spec.linux.cgroupsPath === undefined
      ? { steps: [], parts: [] }
      : (await import('./cgroups.ts')).cgroupSteps(definition.id, spec);
  const apparmor = explainConfinement(spec.process.apparmorProfile, definition.privileged);
  const sections: Section[] = [
    { title: 'Files of the container', steps: fileSteps(definition, spec, endpoints) },
    ...(user === undefined ? [] : [{ title: 'User namespace and what is mounted from outside', steps: user.steps }]),
    ...apparmor.sections,
    ...(limits.steps.length === 0 ? [] : [{ title: 'Limits of the container', steps: limits.steps }]),
    ...attached
      .filter(({ network }) => network.driver === 'bridge')
      .map(({ network, endpoint }) => sharedNetworkSection(network, endpoint.hostIfname)),
    ...(place.kind === 'own'
      ? [
          {
            title: 'Network stack of the container',
            steps: [
              ...planConnection(namespaceName(definition), endpoints, hasIpv6(), user && '$holder'),
              ...names.steps,
              ...published,
            ],
          },
        ]
      : []),
    ...checksSection(planChecks(definition)),
    {
      title: 'The process',
      steps: [
        processStep(definition, confined(spec, apparmor.profile), endpoints, detach, { user, parts: limits.parts }),
      ],
    },
  ];
  return renderScript(
    `Container ${definition.name} from ${definition.image}: what "minirun run" does, as a person would type it. ` +
      `minirun takes the steps of ${limits.steps.length > 0 ? 'all parts but the last' : 'the first three parts'} while the process is starting and mounting, and lets it go on when all of them are done.` +
      (attached.length > 0 ? ' minirun reserves the address, the script cannot.' : ''),
    sections,
    { ...variablesOf(definition), ...(limits.steps.length > 0 ? { id: definition.id } : {}) },
  );
}

function checksSection(steps: Step[]): Section[] {
  return steps.length === 0 ? [] : [{ title: 'Health checks', steps }];
}

function confined(spec: OciSpec, apparmorProfile: string | undefined): OciSpec {
  return { ...spec, process: { ...spec.process, apparmorProfile } };
}

/** The two long paths of every script: the container's folder and its topmost image layer. */
function variablesOf({ id, layers }: Definition): Record<string, string> {
  return { dir: containerFiles(id).directory, ...(layers[0] === undefined ? {} : { layer: layers[0] }) };
}

/** `rm --explain`: what was done for a container; `delete` is what `rm` does. */
export async function explainRemove(reference: string, volumes: boolean): Promise<string> {
  const { definition, state } = requireContainer(reference);
  const isOfCgroup = ({ id }: Step) => id.startsWith('cgroup.');
  const spec = readSpec(definition.id);
  const applied = readSteps(definition.id);
  return renderScript(
    `Container ${definition.name}: "delete" is what "minirun rm -f ${volumes ? '-v ' : ''}${definition.name}" does, as a person would type it.`,
    [
      {
        title: 'Files of the container',
        steps: fileSteps(definition, spec, state.endpoints, volumes || definition.autoRemove),
      },
      ...(applied.some(isOfCgroup) ? [{ title: 'Limits of the container', steps: applied.filter(isOfCgroup) }] : []),
      {
        title: 'Network stack of the container',
        steps: applied.filter((step) => step.id !== checksStep && !isOfCgroup(step)),
      },
      ...checksSection(applied.filter(({ id }) => id === checksStep)),
      { title: 'Links', steps: linksOf(definition.id).flatMap(({ applied }) => applied) },
      {
        title: 'The process',
        steps: [processStep(definition, spec, state.endpoints, true, { running: state.init?.pid })],
      },
    ],
    variablesOf(definition),
  );
}

/** Its user namespace by hand, if it has one. */
async function userNamespaceOf({ definition, spec }: Draft): Promise<ExplainedUserNamespace | undefined> {
  if (definition.userns === undefined) return undefined;
  const { explainUserNamespace } = await import('./explain-user-namespace.ts');
  const place = networkOf(definition);
  return explainUserNamespace(definition, spec, {
    ownNetwork: place.kind === 'own',
    netns: place.kind === 'joined' ? place.netns : undefined,
  });
}

/** The endpoints that a container would get now. Nothing is leased. */
function attach(attachments: readonly Attachment[], id: string): (Place & { network: Network })[] {
  const ifnames = attachments.flatMap(({ ifname }) => ifname ?? []);
  return attachments.map((attachment) => {
    const network = networkNamed(attachment.network);
    const draft = { ...network, leases: { ...network.leases }, last: { ...network.last } };
    const ifname = attachment.ifname ?? nextIfname(ifnames);
    ifnames.push(ifname);
    return {
      network,
      endpoint: endpointOf(network, allocate(draft, id, attachment, nameOfContainer), attachment, ifname, defaultMtu()),
      bringUp: !isUp(network),
    };
  });
}

function networkNamed(name: string): Network {
  return name === defaultNetworkName ? (readNetwork(name) ?? newDefaultNetwork()) : requireNetwork(name);
}

/** @param removesVolumes whether to take the anonymous volumes back, too */
function fileSteps(
  definition: Definition,
  spec: OciSpec,
  endpoints: readonly Endpoint[],
  removesVolumes = true,
): Step[] {
  const { directory, hosts } = containerFiles(definition.id);
  const folder: Step = {
    id: 'folder',
    why: 'Its own folder, for the files that follow.',
    apply: [{ tool: 'mkdir', path: directory, mode: 0o700 }],
    undo: [],
  };
  const steps = [
    ...(definition.rootfs === undefined ? [] : [folder]),
    ...planFiles({ definition }, spec.hostname, resolversFor(definition)),
  ];
  const isKept = ({ name }: Volume) => spec.mounts.some(({ source }) => source === volumeData(name));
  const volumes = (definition.volumes ?? []).filter(isKept).map(
    ({ name, destination, named, from }): Step => ({
      id: 'volume',
      why: `A directory of its own for ${destination}: it can outlive the container.`,
      apply: [{ tool: 'mkdir', path: volumeData(name), mode: 0o755 }],
      undo: removesVolumes && named !== true && from !== true ? [{ tool: 'remove', path: paths.volume(name) }] : [],
    }),
  );
  const files = steps.map((step, index) => ({
    ...step,
    apply: step.apply.map((command) =>
      command.tool === 'file' && command.path === hosts
        ? { ...command, content: hostsContent(definition, spec.hostname, endpoints) }
        : command,
    ),
    undo: index === 0 ? [{ tool: 'remove' as const, path: directory }] : [],
  }));
  return [...files, ...volumes];
}

/**
 * The process by hand: the same namespaces and mounts with the tools of util-linux. What no tool can do is said in
 * the step's reason.
 */
function processStep(
  definition: Definition,
  spec: OciSpec,
  endpoints: readonly Endpoint[],
  detach: boolean,
  { user, running, parts = [] }: { user?: ExplainedUserNamespace; running?: number; parts?: readonly Part[] },
): Step {
  const { directory } = containerFiles(definition.id);
  const pidFile = `${directory}/pid`;
  const place = networkOf(definition);
  const enter =
    user !== undefined
      ? user.enter
      : place.kind === 'own'
        ? `ip netns exec ${word(namespaceName(definition))} `
        : place.kind === 'joined'
          ? `nsenter --net=${word(place.netns)} `
          : '';
  const inner = innerScript(definition, spec, interfaceSysctls(endpoints, hasIpv6()), parts, user);
  const groups = parts.map(({ directory }) => word(directory)).join(' ');
  const command = [
    ...(groups === '' ? [] : [`sh -e -c 'for d in ${groups}; do echo $$ >$d/cgroup.procs; done; exec "$@"' join \\`]),
    `${enter}unshare --pid --mount ${spec.mounts.some(isPropagated) ? '--propagation slave ' : ''}--uts --ipc --cgroup --fork --kill-child sh -e -c '`,
    ...inner.map((line) => `  ${line.replaceAll("'", "'\\''")}`),
  ];
  return {
    id: 'process',
    why:
      'The command becomes pid 1 of new namespaces. init, which is minirun itself, makes the same mounts by system calls; it also ' +
      'changes the root with pivot_root(2) instead of chroot, loads a seccomp filter that no tool can load, and hides the paths that are masked here.',
    apply: [
      {
        tool: 'process',
        script: [...command, detach ? `' </dev/null >/dev/null 2>&1 & echo $! >${word(pidFile)}` : "'"].join('\n'),
      },
    ],
    undo: [
      {
        tool: 'process',
        script:
          running === undefined ? `[ -s ${word(pidFile)} ] && kill -9 "$(cat ${word(pidFile)})"` : `kill -9 ${running}`,
      },
    ],
  };
}

/** What runs inside the new namespaces, one command a line; the root filesystem is the working directory. */
function innerScript(
  definition: Definition,
  spec: OciSpec,
  sysctl: Record<string, string>,
  parts: readonly Part[],
  within?: ExplainedUserNamespace,
): string[] {
  const root = within === undefined ? spec.root.path : 'rootfs';
  const lines =
    within?.first ??
    (definition.rootfs === undefined ? overlayLines(definition, root) : [`mount --rbind ${word(root)} ${word(root)}`]);
  // A shell would otherwise go there from its own root, and not everybody may.
  lines.push(within === undefined ? `cd ${word(root)}` : `cd -P ${word(root)}`);
  for (const { name, destination, copy } of definition.volumes ?? []) {
    // In a user namespace the volume can be reached only as it is prepared there.
    const volume = within?.mounts.find((mount) => mount.destination === destination)?.source ?? volumeData(name);
    if (copy)
      lines.push(
        `if [ -d ${inside(destination)} ] && [ -z "$(ls -A ${volume})" ]; then cp -a ${inside(destination)}/. ${volume}; fi`,
      );
  }
  for (const mount of within?.mounts ?? spec.mounts) {
    lines.push(...mountLines(mount, parts));
    if (mount.destination === '/dev' && (mount.type === 'tmpfs' || mount.source === '../dev')) {
      for (const { path, type, major, minor, fileMode } of mount.type === 'tmpfs' ? spec.linux.devices : [])
        lines.push(`mknod -m ${fileMode.toString(8)} ${inside(path)} ${type} ${major} ${minor}`);
      lines.push('ln -s pts/ptmx dev/ptmx', 'ln -s /proc/self/fd dev/fd');
      for (const [fd, name] of ['stdin', 'stdout', 'stderr'].entries())
        lines.push(`ln -s /proc/self/fd/${fd} dev/${name}`);
    }
  }
  lines.push(`hostname ${word(spec.hostname)}`);
  for (const [key, value] of Object.entries({ ...sysctl, ...spec.linux.sysctl }))
    lines.push(`echo ${word(value)} >${inside(sysctlFile(key))}`);
  const { maskedPaths } = spec.linux;
  // A file of /proc cannot be put on itself there by mount(8); nobody in there may write to it anyway.
  const readonlyPaths = spec.linux.readonlyPaths.filter(
    (each) => within === undefined || each !== '/proc/sysrq-trigger',
  );
  if (readonlyPaths.length > 0) {
    lines.push(
      `for p in ${readonlyPaths.map(inside).join(' ')}; do`,
      '  if [ -e $p ]; then mount --rbind $p $p; mount -o remount,bind,ro,nosuid,nodev,noexec $p; fi',
      'done',
    );
  }
  if (maskedPaths.length > 0) {
    lines.push(
      `for p in ${maskedPaths.map(inside).join(' ')}; do`,
      '  if [ -d $p ]; then mount -t tmpfs -o ro tmpfs $p; elif [ -e $p ]; then mount --bind dev/null $p; fi',
      'done',
    );
  }
  if (spec.root.readonly) lines.push('mount -o remount,bind,ro .');
  if (spec.process.oomScoreAdj !== undefined) lines.push(`echo ${spec.process.oomScoreAdj} >/proc/self/oom_score_adj`);
  for (const { type, soft, hard } of spec.process.rlimits) {
    if (type === 'RLIMIT_NOFILE') lines.push(`ulimit -Sn ${soft}`, `ulimit -Hn ${hard}`);
  }
  const kept = new Set(spec.process.capabilities.bounding);
  const dropped =
    kept.size === capabilityNames.length
      ? ''
      : `--bounding-set=-all${[...kept].map((name) => `,+${name.slice(4).toLowerCase()}`).join('')} `;
  const { username, additionalGroups: groups = [] } = spec.process.user;
  const user = [
    ...(username === '' ? [] : [`--userspec=${word(username)} `]),
    ...(groups.length === 0 ? [] : [`--groups=${word(groups.join(','))} `]),
  ].join('');
  const env = spec.process.env.map(word).join(' ');
  const change = spec.process.cwd === '/' ? '' : `sh -c ${word(`cd ${word(spec.process.cwd)} && exec "$@"`)} sh `;
  const { apparmorProfile: profile } = spec.process;
  if (profile !== undefined && profile !== 'unconfined')
    lines.push(`printf %s ${word(`exec ${profile}`)} >/proc/thread-self/attr/exec`);
  lines.push(
    `exec env -i ${env} \\`,
    `  setpriv ${dropped}--inh-caps=-all ${spec.process.noNewPrivileges ? '--no-new-privs ' : ''}\\`,
    `  chroot ${user}. ${change}${spec.process.args.map(word).join(' ')}`,
  );
  return lines;
}

/**
 * The overlay, with short names for layers where the whole ones do not fit in the page that mount(2) takes. They are
 * needed only while it is mounted, so they lie in a tmpfs that only the shell itself has.
 */
function overlayLines({ id, layers }: Definition, root: string): string[] {
  const { upper, work } = containerFiles(id);
  const mount = (lower: string, up: string, at: string) => [
    // mount(8) from 2.39 on hands over each option by itself, and the kernel then takes 255 characters of it.
    ...(lower.length > 255 ? ['# one option of more than 255 characters takes mount(2)'] : []),
    `${lower.length > 255 ? 'LIBMOUNT_FORCE_MOUNT2=always ' : ''}mount -t overlay -o nodev,lowerdir=${lower},upperdir=${up},workdir=${at} overlay ${word(root)}`,
  ];
  const whole = layers.join(':');
  if (whole.length + upper.length + work.length < 4000) return mount(whole, upper, work);
  return [
    `mount -t tmpfs layers ${word(root)}`,
    `cd ${word(root)}`,
    `umount -l ${word(root)}`,
    'n=0',
    'for l in \\',
    ...layers.map((layer, index) => `  ${layer}${index === layers.length - 1 ? '' : ' \\'}`),
    'do ln -s $l $n; n=$((n + 1)); done',
    `ln -s ${upper} upper; ln -s ${work} work`,
    ...mount([...layers.keys()].join(':'), 'upper', 'work'),
  ];
}

/** A path of the container, seen from its root filesystem as the working directory. */
function inside(path: string): string {
  return word(path.replace(/^\//, ''));
}

function mountLines({ destination, type, source, options, subpath }: OciMount, parts: readonly Part[]): string[] {
  const target = inside(destination);
  // Shows the cgroup of whoever has made the cgroup namespace as its root.
  if (type === 'cgroup' && parts.length > 0 && parts.every(({ version }) => version === 2))
    return [`mount -t cgroup2 -o ${options.join(',')} cgroup ${target}`];
  if (type === 'cgroup') return [`mount --rbind /sys/fs/cgroup ${target}`];
  if (type === 'bind') {
    const propagation = options.find((option) => /^r?(private|slave|shared)$/.test(option)) ?? 'rprivate';
    const flags = options.filter((option) => !/^r?(bind|private|slave|shared)$/.test(option));
    const below = flags.flatMap((flag) => (/^r(ro|nodev|noexec|nosuid)$/.test(flag) ? flag.slice(1) : []));
    const top = flags.filter((flag) => !below.includes(flag.slice(1)));
    const from = subpath === undefined ? source : `${source}/${subpath}`;
    return [
      `[ -e ${target} ] || if [ -d ${word(from)} ]; then mkdir -p ${target}; else touch ${target}; fi`,
      `mount --${options.includes('rbind') ? 'rbind' : 'bind'} ${word(from)} ${target}`,
      ...(top.length > 0 ? [`mount -o remount,bind,${top.join(',')} ${target}`] : []),
      // mount(8) learnt to do this by itself (ro=recursive) in 2.39, and before that ignores it without a word.
      ...(below.length > 0
        ? [
            `findmnt -rno TARGET -R "$PWD/"${target} | while read -r m; do mount -o remount,bind,${below.join(',')} "$m"; done`,
          ]
        : []),
      ...(/private/.test(propagation) ? [] : [`mount --make-${propagation} ${target}`]),
    ];
  }
  return [`mkdir -p ${target}`, `mount -t ${type} -o ${word(options.join(','))} ${source} ${target}`];
}
