import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { decodeAnswers, encodeCalls, syscallProgram, type SystemCall } from '../support/syscalls.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

// What the default seccomp policy does, asked inside a container: a row for each family of system calls. Where the kernel
// itself would say EPERM to these arguments, only the unit test of the policy tells the filter from it; where it would not,
// the row says `filter`, and the same call in a container without a filter has to be answered differently.

type Row = [call: string, args: (bigint | number)[], answer: string, who?: 'filter'];

const newUser = 0x10000000n;

/** The same in both ABIs. Arguments are such that nothing happens where the call is let through. */
const rows: Row[] = [
  // Keyrings have no namespace.
  ['add_key', [0, 0, 0, 0, 0], 'EPERM', 'filter'],
  ['request_key', [0, 0, 0, 0], 'EPERM', 'filter'],
  ['keyctl', [9999], 'EPERM', 'filter'],
  // Programs in the kernel, and looking into it.
  ['bpf', [9999, 0, 0], 'EPERM'],
  ['perf_event_open', [0, 0, 0, 0, 0], 'EPERM'],
  ['userfaultfd', [0xffff], 'EPERM'],
  ['io_uring_setup', [0, 0], 'EPERM'],
  ['io_uring_enter', [-1], 'EPERM', 'filter'],
  ['syslog', [99, 0, 0], 'EPERM'],
  ['kcmp', [1, 1, 0, 0, 0], 'EPERM', 'filter'],
  // Another kernel, modules.
  ['kexec_load', [0, 0, 0, 0], 'EPERM'],
  ['init_module', [0, 0, 0], 'EPERM'],
  ['finit_module', [-1, 0, 0], 'EPERM'],
  ['delete_module', [0, 0], 'EPERM'],
  // Mounts.
  ['mount', [0, 0, 0, 0, 0], 'EPERM', 'filter'],
  ['umount2', [0, 0], 'EPERM', 'filter'],
  ['pivot_root', [0, 0], 'EPERM'],
  ['fsopen', [0, 0], 'EPERM'],
  ['fsconfig', [-1], 'EPERM', 'filter'],
  ['fsmount', [-1], 'EPERM'],
  ['fspick', [-1, 0, 0], 'EPERM'],
  ['move_mount', [-1, 0, -1, 0, 0], 'EPERM'],
  ['open_tree', [-1, 0, 0], 'EPERM', 'filter'],
  ['mount_setattr', [-1, 0, 0, 0, 0], 'EPERM', 'filter'],
  ['statmount', [0, 0, 0, 0], 'ENOSYS'],
  ['listmount', [0, 0, 0, 0], 'ENOSYS'],
  // Namespaces. Without the filter the flags that do not go together are EINVAL.
  ['unshare', [newUser | 1n], 'EPERM', 'filter'],
  ['setns', [-1, 0], 'EPERM', 'filter'],
  ['clone', [newUser | 0x200n], 'EPERM', 'filter'],
  ['clone', [0x20200], 'EPERM', 'filter'],
  ['clone3', [0, 0], 'ENOSYS', 'filter'],
  ['sethostname', [0, -1], 'EPERM'],
  ['setdomainname', [0, -1], 'EPERM'],
  // Files and processes that are not the container's.
  ['open_by_handle_at', [-1, 0, 0], 'EPERM', 'filter'],
  ['pidfd_getfd', [-1, 0, 0], 'EPERM', 'filter'],
  ['process_madvise', [-1, 0, 0, 0, 0], 'EPERM', 'filter'],
  ['process_vm_readv', [1, 0, 0, 0, 0, 0], 'EPERM', 'filter'],
  ['lsm_set_self_attr', [0, 0, 0, 0], 'ENOSYS'],
  // Weaker address space randomization.
  ['personality', [0x40000], 'EPERM', 'filter'],
  // Sockets of the hypervisor, of the kernel's crypto, of networks that are gone.
  ['socket', [40, 1, 0], 'EAFNOSUPPORT'],
  ['socket', [38, 5, 0], 'EAFNOSUPPORT'],
  ['socket', [(1n << 32n) | 38n, 5, 0], 'EAFNOSUPPORT'],
  ['socket', [37, 1, 0], 'EAFNOSUPPORT'],
  // Typing into a terminal, also with bits that the kernel cuts off (CVE-2019-10063).
  ['ioctl', [-1, 0x5412, 0], 'EPERM', 'filter'],
  ['ioctl', [-1, 0x541c, 0], 'EPERM', 'filter'],
  ['ioctl', [-1, (1n << 32n) | 0x5412n, 0], 'EPERM', 'filter'],
  // The machine: power, clock, swap, accounting, quotas, ports.
  ['reboot', [0, 0, 0, 0], 'EPERM'],
  ['settimeofday', [0, 0], 'EPERM'],
  ['clock_settime', [9999, 0], 'EPERM', 'filter'],
  ['swapon', [0, 0], 'EPERM'],
  ['swapoff', [0], 'EPERM'],
  ['acct', [1], 'EPERM'],
  ['quotactl', [0, 0, 0, 0], 'EPERM'],
  ['quotactl_fd', [-1], 'EPERM', 'filter'],
  ['iopl', [4], 'EPERM'],
  ['ioperm', [70000, 1, 1], 'EPERM'],
  ['vhangup', [], 'EPERM'],
  ['mbind', [0, 0, 99, 0, 0, 0], 'EPERM'],
  ['set_mempolicy', [99, 0, 0], 'EPERM'],
  ['move_pages', [0, 0, 0, 0, 0, 99], 'EPERM'],
  ['fanotify_init', [-1, 0], 'EPERM'],
  ['uselib', [0], 'EPERM'],
  ['ustat', [0, 0], 'EPERM'],
  ['sysfs', [99], 'EPERM'],
  ['nfsservctl', [], 'ENOSYS'],
  // What everybody may do.
  ['ptrace', [0], 'ok'],
  ['chroot', [0], 'EFAULT'],
  ['personality', [0xffffffff], 'ok'],
  ['personality', [8], 'ok'],
  ['ioctl', [-1, 0x5401, 0], 'EBADF'],
  ['socket', [1, 1, 0], 'ok'],
  ['socket', [2, 1, 0], 'ok'],
  ['socket', [16, 3, 0], 'ok'],
  ['read', [-1, 0, 0], 'EBADF'],
  ['openat', [-1, 0, 0, 0], 'EFAULT'],
  ['execve', [0, 0, 0], 'EFAULT'],
  ['getpid', [], 'ok'],
  ['setuid', [0], 'ok'],
  ['kill', [1, 0], 'ok'],
  ['epoll_create1', [0], 'ok'],
  ['inotify_init1', [0], 'ok'],
  ['memfd_create', [0, 0], 'EFAULT'],
  ['mknodat', [-1, 0, 0, 0], 'EFAULT'],
  ['name_to_handle_at', [-1, 0, 0, 0, 0], 'EFAULT'],
  ['rt_sigaction', [0, 0, 0, 0], 'EINVAL'],
  ['sched_yield', [], 'ok'],
  ['mlock', [0, 0], 'ok'],
  ['shmget', [0, 0, 0], 'EINVAL'],
  ['mq_open', [0, 0], 'EFAULT'],
  ['seccomp', [99, 0, 0], 'EINVAL'],
];

/** Only there: the ways round it that socketcall and older calls of the 32-bit ABI would be. */
const rowsOf32Bit: Row[] = [
  ['socketcall', [1, 0], 'ENOSYS', 'filter'],
  ['socketcall', [3, 0], 'EFAULT'],
  ['umount', [0], 'EPERM', 'filter'],
  ['stime', [0], 'EPERM', 'filter'],
  ['vm86', [0, 0], 'EPERM'],
];

/** Answers with capabilities that open a family, and what stays shut whatever they are. */
const opened: Row[] = [
  ['mount', [0, 0, 0, 0, 0], 'EFAULT'],
  ['setns', [-1, 0], 'EBADF'],
  ['unshare', [newUser | 1n], 'EINVAL'],
  ['clone3', [0, 0], 'EINVAL'],
  ['bpf', [9999, 0, 0], 'EINVAL'],
  ['syslog', [99, 0, 0], 'EINVAL'],
  ['reboot', [0, 0, 0, 0], 'EINVAL'],
  ['settimeofday', [0, 0], 'ok'],
  ['acct', [1], 'EFAULT'],
  ['open_by_handle_at', [-1, 0, 0], 'EFAULT'],
  ['kcmp', [1, 1, 0, 0, 0], 'ok'],
  ['keyctl', [9999], 'EPERM'],
  ['userfaultfd', [0xffff], 'EPERM'],
  ['io_uring_setup', [0, 0], 'EPERM'],
  ['kexec_load', [0, 0, 0, 0], 'EPERM'],
  ['swapon', [0, 0], 'EPERM'],
  ['uselib', [0], 'EPERM'],
  ['personality', [0x40000], 'EPERM'],
  ['socket', [38, 5, 0], 'EAFNOSUPPORT'],
  ['ioctl', [-1, 0x5412, 0], 'EPERM'],
];

const unknown = [337, 470, 500, 600, 1000, 0x3fffffff];

const missing = process.arch === 'x64' ? missingWorld() : 'the program that makes the calls is for x86-64';

describe.skipIf(skipOrFail(missing))('system calls in a container', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await expectNoLeak(before, world);
    await world.destroy();
  });

  /** What a container with these options answers to the calls, in their order. */
  async function ask(calls: readonly SystemCall[], ...options: string[]): Promise<string[]> {
    const directory = fs.mkdtempSync(path.join(world.directory, 'calls-'));
    fs.writeFileSync(path.join(directory, 'program'), syscallProgram(), { mode: 0o755 });
    fs.writeFileSync(path.join(directory, 'requests'), encodeCalls(calls));
    const volume = ['-v', `${directory}:/calls:ro`, '--network', 'none'];
    const script = '/calls/program </calls/requests | base64';
    const { code, stdout, stderr } = await world.run([
      'run',
      '--rm',
      ...volume,
      ...options,
      'busybox',
      'sh',
      '-c',
      script,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const answers = decodeAnswers(Buffer.from(stdout, 'base64'));
    expect(answers).toHaveLength(calls.length);
    return answers;
  }

  const named = (abi: 'x86_64' | 'i386', list: readonly Row[]): SystemCall[] =>
    list.map(([call, args]) => ({ abi, call, args }));
  const table = (list: readonly Row[], answers: readonly string[]) =>
    list.map(([call, args], index) => `${call}(${args.join(', ')}) = ${answers[index]}`);

  /** A kernel may be built, or told, to have no 32-bit calls. Then a program that tries one is killed. */
  const has32Bit = async () =>
    (await ask([{ abi: 'i386', call: 'getpid' }], '--security-opt', 'seccomp=unconfined'))[0] === 'ok';

  test.each(['x86_64', 'i386'] as const)('%s: each family', async (abi) => {
    const list = abi === 'i386' ? [...rows, ...rowsOf32Bit] : rows;
    const calls = named(abi, list);
    if (abi === 'i386' && !(await has32Bit())) {
      expect(new Set(await ask(calls))).toEqual(new Set(['signal 11']));
      return;
    }
    expect(table(list, await ask(calls))).toEqual(
      table(
        list,
        list.map(([, , answer]) => answer),
      ),
    );
    const free = await ask(calls, '--security-opt', 'seccomp=unconfined');
    const filtered = list.filter(([, , answer, who], index) => who === 'filter' && free[index] === answer);
    expect(filtered).toEqual([]);
  });

  test('the capabilities that a family takes open it, and only that', async () => {
    const capabilities = 'SYS_ADMIN BPF SYSLOG SYS_BOOT SYS_TIME SYS_PACCT DAC_READ_SEARCH SYS_PTRACE'.split(' ');
    const answers = await ask(named('x86_64', opened), ...capabilities.flatMap((name) => ['--cap-add', name]));
    expect(table(opened, answers)).toEqual(
      table(
        opened,
        opened.map(([, , answer]) => answer),
      ),
    );
    const chroot: Row[] = [['chroot', [0], 'EPERM']];
    expect(await ask(named('x86_64', chroot), '--cap-drop', 'SYS_CHROOT')).toEqual(['EPERM']);
  });

  test('numbers without a call, and those of x32, are ENOSYS', async () => {
    const x32 = ['read', 'getpid', 'mount', 'ioctl'].map((call): SystemCall => ({ abi: 'x32', call }));
    const calls = [...unknown.map((call): SystemCall => ({ abi: 'x86_64', call })), ...x32];
    expect(new Set(await ask(calls))).toEqual(new Set(['ENOSYS']));
  });

  test('an ABI that a profile does not list is answered by killing, x32 never allowed', async () => {
    const profile = path.join(world.directory, 'native.json');
    fs.writeFileSync(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls: [] }));
    const calls: SystemCall[] = [
      { abi: 'x86_64', call: 'keyctl', args: [9999] },
      { abi: 'i386', call: 'getpid' },
      { abi: 'x32', call: 'getpid' },
    ];
    const [native, compat, x32] = await ask(calls, '--security-opt', `seccomp=${profile}`);
    expect({ native, x32 }).toEqual({ native: 'ENOTSUP', x32: 'signal 31' });
    expect(compat).toMatch(/^signal (31|11)$/);
  });
});
