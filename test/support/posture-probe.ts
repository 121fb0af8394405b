/**
 * Asks a container what it may do, from inside: `bun posture-probe.js`, bundled by `posture.ts`. Prints one JSON object:
 * what was asked, and the answer. An answer is a value, `allowed`, or the name of the error that the kernel gave.
 *
 * Nothing here changes anything even where it is allowed: arguments are such that a call gets past its check of
 * permissions and then fails, or does nothing.
 */
import { dlopen, FFIType, ptr, read } from 'bun:ffi';
import fs from 'node:fs';
import os from 'node:os';
import { aarch64, x86_64 } from '../../src/seccomp/tables.ts';

const { i64_fast: i64, ptr: pointer } = FFIType;
const { symbols: libc } = dlopen('libc.so.6', {
  __errno_location: { args: [], returns: pointer },
  syscall: { args: [i64, i64, i64, i64, i64, i64, i64], returns: i64 },
});

const numbers: Readonly<Record<string, number>> = process.arch === 'arm64' ? aarch64 : x86_64;

const answers: Record<string, string> = {};
const kept: unknown[] = [];

function text(value: string): number {
  const bytes = Buffer.from(`${value}\0`);
  kept.push(bytes);
  return ptr(bytes);
}

function nameOf(errno: number): string {
  return Object.entries(os.constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
}

/** The name of the error of a system call, or `allowed`. */
function call(name: string, ...args: number[]): string {
  const number = numbers[name];
  if (number === undefined) return 'none here';
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = args;
  const result = Number(libc.syscall(number, a, b, c, d, e, f));
  if (result !== -1) return 'allowed';
  return nameOf(read.i32(libc.__errno_location() as never, 0));
}

function attempt(work: () => unknown): string {
  try {
    const result = work();
    return typeof result === 'string' ? result : 'allowed';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

function status(): void {
  const lines = fs.readFileSync('/proc/self/status', 'latin1');
  for (const field of ['CapBnd', 'CapPrm', 'CapEff', 'CapInh', 'CapAmb', 'NoNewPrivs', 'Seccomp'])
    answers[`status ${field}`] = new RegExp(`^${field}:\\s*(\\S+)$`, 'm').exec(lines)?.[1] ?? 'none';
}

function systemCalls(): void {
  const newNs: Record<string, number> = {
    user: 0x1000_0000,
    mount: 0x2_0000,
    net: 0x4000_0000,
    pid: 0x2000_0000,
    uts: 0x400_0000,
    ipc: 0x800_0000,
    cgroup: 0x200_0000,
  };
  const calls: [string, () => string][] = [
    // On what would not be done anyway: a file system type that nobody has, an empty path.
    ['mount', () => call('mount', text('none'), text('/proc'), text('tmpfs'), 0, 0)],
    ['remount of /proc/sys', () => call('mount', 0, text('/proc/sys'), 0, 0x1000 | 0x20, 0)],
    ['umount2 of /proc', () => call('umount2', text('/proc/sys'), 2)],
    ['pivot_root', () => call('pivot_root', text('/'), text('/'))],
    ['fsopen', () => call('fsopen', text('tmpfs'), 0)],
    ['open_tree (clone)', () => call('open_tree', -100, text('/'), 1)],
    ['move_mount', () => call('move_mount', -1, text(''), -1, text(''), 0)],
    ['mount_setattr', () => call('mount_setattr', -1, text(''), 0, 0, 0)],
    ['setns', () => call('setns', fs.openSync('/proc/self/ns/uts', 'r'), newNs.uts as number)],
    ['clone3', () => call('clone3', 0, 0)],
    ['clone of a user namespace', () => call('clone', (newNs.user as number) | 0x10000 | 0x800, 0)],
    ['bpf', () => call('bpf', 0, 0, 0)],
    ['perf_event_open', () => call('perf_event_open', 0, 0, -1, -1, 0)],
    ['userfaultfd', () => call('userfaultfd', 0)],
    ['io_uring_setup', () => call('io_uring_setup', 0, 0)],
    ['kexec_load', () => call('kexec_load', 0, 1, 0, 0xffff)],
    ['init_module', () => call('init_module', 0, 0, 0)],
    ['delete_module', () => call('delete_module', 0, 0)],
    ['open_by_handle_at', () => call('open_by_handle_at', -1, 0, 0)],
    ['add_key', () => call('add_key', 0, 0, 0, 0, 0)],
    ['request_key', () => call('request_key', 0, 0, 0, 0)],
    ['keyctl (session keyring)', () => call('keyctl', 0, -3, 0)],
    ['ptrace of pid 1', () => call('ptrace', 16, process.pid === 1 ? process.ppid || 2 : 1, 0, 0)],
    ['process_vm_readv', () => call('process_vm_readv', process.pid, 0, 0, 0, 0, 0)],
    ['kcmp', () => call('kcmp', process.pid, process.pid, 99, 0, 0)],
    ['personality (no randomization)', () => call('personality', 0x4_0000)],
    ['reboot', () => call('reboot', 0, 0, 0, 0)],
    ['settimeofday', () => call('settimeofday', 0, text('\0'.repeat(16)))],
    ['sethostname', () => call('sethostname', text(os.hostname()), os.hostname().length)],
    ['swapon', () => call('swapon', text('/nowhere'), 0)],
    ['acct', () => call('acct', text('/nowhere'))],
    ['quotactl', () => call('quotactl', 0x800007 << 8, text('/nowhere'), 0, 0)],
    ['syslog (read the kernel log)', () => call('syslog', 3, text('\0'.repeat(64)), 16)],
    ['iopl', () => call('iopl', 3)],
    ['vhangup', () => (process.stdin.isTTY ? 'not tried' : call('vhangup'))],
    ['fanotify_init', () => call('fanotify_init', 0, 0)],
    ['lookup_dcookie', () => call('lookup_dcookie', 0, 0, 0)],
    ['chroot', () => call('chroot', text('/'))],
    [
      'unknown system call',
      () => {
        const result = Number(libc.syscall(2000, 0, 0, 0, 0, 0, 0));
        return result === -1 ? nameOf(read.i32(libc.__errno_location() as never, 0)) : 'allowed';
      },
    ],
    ['socket AF_ALG', () => call('socket', 38, 5, 0)],
    ['socket AF_VSOCK', () => call('socket', 40, 1, 0)],
    ['socket AF_PACKET', () => call('socket', 17, 3, 0)],
    ['socket raw ICMP', () => call('socket', 2, 3, 1)],
    ['socket ping', () => call('socket', 2, 2, 1)],
    ['socket netlink audit', () => call('socket', 16, 3, 9)],
    ['mknod of a disk', () => call('mknodat', -100, text(`/tmp/.disk-${process.pid}`), 0o060600, 0xfe00)],
    ['mknod of memory', () => call('mknodat', -100, text(`/dev/.memory-${process.pid}`), 0o020600, 0x101)],
  ];
  for (const [name, work] of calls) answers[`call ${name}`] = attempt(work);
  // Last: what is allowed here changes this process.
  for (const [name, flag] of Object.entries(newNs)) answers[`call unshare ${name}`] = call('unshare', flag);
}

/** What is at a path: `absent`, `null device`, `empty`, or `readable`. */
function sight(path: string): string {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 'absent';
  if (stat.isCharacterDevice()) return stat.rdev === 0x103 ? 'hidden' : 'device';
  if (stat.isDirectory()) return attempt(() => (fs.readdirSync(path).length === 0 ? 'hidden' : 'readable'));
  return attempt(() => (fs.readFileSync(path).length === 0 ? 'hidden' : 'readable'));
}

function files(): void {
  const secrets = [
    '/proc/acpi',
    '/proc/asound',
    '/proc/interrupts',
    '/proc/kcore',
    '/proc/keys',
    '/proc/latency_stats',
    '/proc/sched_debug',
    '/proc/scsi',
    '/proc/timer_list',
    '/proc/timer_stats',
    '/sys/devices/virtual/powercap',
    '/sys/firmware',
    '/sys/fs/selinux',
    '/sys/devices/system/cpu/cpu0/thermal_throttle',
    '/proc/kmsg',
    '/proc/kallsyms',
    '/dev/mem',
    '/dev/kmsg',
    '/dev/vda',
    '/dev/sda',
    '/sys/kernel/debug',
    '/sys/kernel/tracing',
    '/sys/kernel/security',
  ];
  for (const path of secrets) {
    // The whole of some of these is the machine's memory.
    answers[`read ${path}`] = ['/proc/kcore', '/proc/kmsg', '/dev/kmsg', '/dev/mem', '/dev/vda', '/dev/sda'].includes(
      path,
    )
      ? attempt(() => {
          const stat = fs.statSync(path);
          if (stat.isCharacterDevice() && stat.rdev === 0x103) return 'hidden';
          fs.closeSync(fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK));
          return 'readable';
        }).replace('ENOENT', 'absent')
      : sight(path).replace('ENOENT', 'absent');
  }
  const settings = [
    '/proc/sys/kernel/core_pattern',
    '/proc/sys/kernel/hostname',
    '/proc/sys/kernel/modprobe',
    '/proc/sys/vm/drop_caches',
    '/proc/sys/net/ipv4/ip_forward',
    '/proc/sysrq-trigger',
    '/proc/irq/default_smp_affinity',
    '/proc/bus/pci/devices',
    '/proc/fs/ext4',
    '/sys/kernel/uevent_helper',
    '/sys/kernel/mm/transparent_hugepage/enabled',
    '/sys/power/state',
    '/proc/self/attr/current',
    '/proc/timer_list',
    '/proc/1/oom_score_adj',
    '/proc/scsi/scsi',
    '/proc/acpi/wakeup',
  ];
  for (const path of settings) {
    answers[`write ${path}`] = attempt(() => {
      if (fs.statSync(path).isDirectory()) fs.accessSync(path, fs.constants.W_OK);
      else fs.closeSync(fs.openSync(path, fs.constants.O_WRONLY));
    }).replace('ENOENT', 'absent');
  }
  answers['write a cgroup'] = attempt(() => {
    const [hierarchy = ''] = fs.existsSync('/sys/fs/cgroup/memory') ? ['/sys/fs/cgroup/memory'] : ['/sys/fs/cgroup'];
    fs.mkdirSync(`${hierarchy}/probe`);
    fs.rmdirSync(`${hierarchy}/probe`);
  });
  answers['write release_agent'] = attempt(() => {
    const agent = ['/sys/fs/cgroup/memory/release_agent', '/sys/fs/cgroup/systemd/release_agent'].find((file) =>
      fs.existsSync(file),
    );
    if (agent === undefined) return 'absent';
    fs.closeSync(fs.openSync(agent, fs.constants.O_WRONLY));
    return 'allowed';
  });
  answers['lower its own oom_score_adj'] = attempt(() => {
    const file = '/proc/self/oom_score_adj';
    fs.writeFileSync(file, String(Math.max(-1000, Number(fs.readFileSync(file, 'latin1')) - 1)));
  });
  answers['list /dev'] = fs.readdirSync('/dev').sort().join(' ');
}

function neighbours(host: Record<string, string>): void {
  for (const kind of ['net', 'pid', 'mnt', 'uts', 'ipc', 'cgroup', 'user'])
    answers[`namespace ${kind}`] = fs.readlinkSync(`/proc/self/ns/${kind}`) === host[kind] ? 'the host’s' : 'its own';
  answers['see processes of the host'] = fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .some((pid) => attempt(() => fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1')).includes('posture-witness'))
    ? 'allowed'
    : 'no';
  answers['descriptors left open'] =
    fs
      .readdirSync('/proc/1/fd')
      .flatMap((fd) => attempt(() => fs.readlinkSync(`/proc/1/fd/${fd}`)) || [])
      .filter((target) => /^\/(?!dev\/|proc)/.test(target) && !/bun|posture/.test(target))
      .join(' ') || 'none';
  const address = Buffer.alloc(2 + 1 + host.abstract!.length);
  address.writeUInt16LE(1, 0);
  address.write(`\0${host.abstract}`, 2, 'latin1');
  const fd = Number(libc.syscall(numbers.socket as number, 1, 1, 0, 0, 0, 0));
  kept.push(address);
  const result = Number(libc.syscall(numbers.connect as number, fd, ptr(address), address.length, 0, 0, 0));
  answers['connect to an abstract socket of the host'] =
    result === 0 ? 'allowed' : nameOf(read.i32(libc.__errno_location() as never, 0));
}

const host = JSON.parse(process.argv[2] ?? '{}') as Record<string, string>;
status();
files();
neighbours(host);
systemCalls();
process.stdout.write(`${JSON.stringify(answers)}\n`);
