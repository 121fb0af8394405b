import type { Policy, Rule, Verdict } from './bpf.ts';

/** asm-generic/errno-base.h and errno.h; the same on x86 and ARM. */
const EPERM: Verdict = { errno: 1 };
const ENOSYS: Verdict = { errno: 38 };
const EAFNOSUPPORT: Verdict = { errno: 97 };

/** CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} of linux/sched.h: flags of clone(2) that make a namespace. */
const namespaceFlags = 0x7e02_0000n;

/** Splits a list written as text. */
function words(text: string): string[] {
  return text.trim().split(/\s+/);
}

function allow(text: string): Rule {
  return { names: words(text), verdict: 'allow' };
}

/** Allowed to a process that holds one of some capabilities (separated by blanks). */
function allowWith(capabilities: string, text: string): Rule {
  return { names: words(text), verdict: 'allow', capabilities: words(capabilities) };
}

/** What any program may do: the kernel keeps each of these within the container's namespaces and capabilities. */
const everyday: readonly Rule[] = [
  // Reading, writing and positioning.
  allow('read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek readahead'),
  allow('sendfile sendfile64 splice tee vmsplice copy_file_range'),
  // Opening, closing and duplicating.
  allow('open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock pipe pipe2 memfd_create'),
  allow('memfd_secret name_to_handle_at'),
  // Looking at files.
  allow('stat lstat fstat newfstatat stat64 lstat64 fstat64 fstatat64 statx statfs fstatfs statfs64 fstatfs64'),
  allow('access faccessat faccessat2 readlink readlinkat getdents getdents64 readdir getcwd file_getattr cachestat'),
  // Changing files and directories; mknod of a device needs CAP_MKNOD.
  allow('chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat chown32 fchown32 lchown32 umask'),
  allow('link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod mknodat'),
  allow('truncate ftruncate truncate64 ftruncate64 fallocate utime utimes futimesat utimensat utimensat_time64'),
  allow('chdir fchdir file_setattr'),
  // Extended attributes.
  allow('getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat'),
  allow('listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat'),
  // Writing back, and advice on the page cache.
  allow('sync syncfs fsync fdatasync sync_file_range sync_file_range2 arm_sync_file_range'),
  allow('fadvise64 fadvise64_64 arm_fadvise64_64'),
  // Asynchronous input and output of the old kind. The new kind, io_uring, is absent: its requests pass no filter.
  allow('io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64'),
  // Waiting for events.
  allow('select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 eventfd eventfd2 signalfd signalfd4'),
  allow('epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2'),
  allow('inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark'),
  // Memory.
  allow('brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall mseal'),
  allow('remap_file_pages pkey_alloc pkey_free pkey_mprotect membarrier map_shadow_stack'),
  // Processes and threads; clone and clone3 are below.
  allow('fork vfork execve execveat exit exit_group wait4 waitid waitpid set_tid_address restart_syscall rseq'),
  allow('getpid getppid gettid getpgid getpgrp setpgid getsid setsid pidfd_open pidfd_send_signal process_mrelease'),
  allow('prctl arch_prctl set_thread_area get_thread_area modify_ldt set_tls get_tls cacheflush breakpoint'),
  // Tracing: Linux >= 4.8 runs the filter again after a tracer changed a call, so it is no way round this policy. Its
  // short cuts process_vm_readv and process_vm_writev are below: tracers go on without them.
  allow('ptrace'),
  // Called by the trampolines that a uprobe of the host puts into a process: a refusal would kill the traced program.
  allow('uprobe uretprobe'),
  // Signals.
  allow('kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack pause signal sigaction sigprocmask'),
  allow('sigpending sigsuspend sigreturn sgetmask ssetmask rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend'),
  allow('rt_sigtimedwait rt_sigtimedwait_time64 rt_sigreturn'),
  // Users, groups and capabilities.
  allow('getuid geteuid getgid getegid getresuid getresgid getgroups getuid32 geteuid32 getgid32 getegid32'),
  allow('getresuid32 getresgid32 getgroups32 setuid setgid setreuid setregid setresuid setresgid setgroups'),
  allow('setfsuid setfsgid setuid32 setgid32 setreuid32 setregid32 setresuid32 setresgid32 setgroups32 setfsuid32'),
  allow('setfsgid32 capget capset'),
  // Limits, priorities and scheduling.
  allow('getrlimit ugetrlimit setrlimit prlimit64 getrusage getpriority setpriority nice ioprio_get ioprio_set getcpu'),
  allow('sched_yield sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_getattr sched_setattr'),
  allow('sched_getaffinity sched_setaffinity sched_get_priority_max sched_get_priority_min sched_rr_get_interval'),
  allow('sched_rr_get_interval_time64'),
  // Clocks and timers; the kernel asks for CAP_SYS_TIME when an adjtime sets something.
  allow('time gettimeofday times clock_gettime clock_gettime64 clock_getres clock_getres_time64 nanosleep'),
  allow('clock_nanosleep clock_nanosleep_time64 adjtimex clock_adjtime clock_adjtime64 alarm getitimer setitimer'),
  allow('timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64'),
  allow('timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64'),
  // Locks between threads.
  allow('futex futex_time64 futex_wait futex_wake futex_requeue futex_waitv set_robust_list get_robust_list'),
  // System V and POSIX messages, semaphores and shared memory: in the container's ipc namespace.
  allow('ipc msgget msgsnd msgrcv msgctl semget semop semctl semtimedop semtimedop_time64 shmget shmat shmdt shmctl'),
  allow('mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedreceive mq_timedsend_time64'),
  allow('mq_timedreceive_time64'),
  // Sockets, in the container's net namespace; socket itself is below.
  allow('socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt'),
  allow('send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64'),
  // About the system, and random numbers.
  allow('uname sysinfo getrandom'),
  // Confining oneself further.
  allow('seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self'),
];

/** What takes a capability. The kernel checks it too; the filter keeps the code before that check out of reach. */
const gated: readonly Rule[] = [
  // Mounts, old and new interface.
  allowWith('CAP_SYS_ADMIN', 'mount umount umount2 pivot_root open_tree open_tree_attr move_mount mount_setattr'),
  allowWith('CAP_SYS_ADMIN', 'fsopen fsconfig fsmount fspick statmount listmount'),
  // Namespaces.
  allowWith('CAP_SYS_ADMIN', 'unshare setns clone clone3 sethostname setdomainname'),
  // Quotas, and watching whole file systems.
  allowWith('CAP_SYS_ADMIN', 'quotactl quotactl_fd fanotify_init'),
  // Labels of AppArmor, SELinux and others.
  allowWith('CAP_SYS_ADMIN', 'lsm_get_self_attr lsm_set_self_attr lsm_list_modules'),
  allowWith('CAP_SYS_ADMIN CAP_BPF', 'bpf'),
  allowWith('CAP_SYS_ADMIN CAP_PERFMON', 'perf_event_open'),
  // The kernel's log.
  allowWith('CAP_SYS_ADMIN CAP_SYSLOG', 'syslog'),
  allowWith('CAP_SYS_CHROOT', 'chroot'),
  // Other processes' memory and descriptors.
  allowWith('CAP_SYS_PTRACE', 'kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev'),
  // Placing memory on NUMA nodes.
  allowWith('CAP_SYS_NICE', 'get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages'),
  allowWith('CAP_SYS_MODULE', 'init_module finit_module delete_module'),
  allowWith('CAP_SYS_RAWIO', 'iopl ioperm'),
  allowWith('CAP_SYS_TIME', 'settimeofday stime clock_settime clock_settime64'),
  // Ends the container's pid namespace. kexec_load takes the same capability but would replace the host's kernel.
  allowWith('CAP_SYS_BOOT', 'reboot'),
  allowWith('CAP_SYS_PACCT', 'acct'),
  allowWith('CAP_SYS_TTY_CONFIG', 'vhangup'),
  // A file handle reaches any file of a mounted file system, outside the rootfs too (the "shocker" escape).
  allowWith('CAP_DAC_READ_SEARCH', 'open_by_handle_at'),
];

/** A rule on the low 32 bits of an argument: all that the kernel looks at where it declares an int. */
function when(name: string, argument: 0 | 1, value: bigint, verdict: Verdict): Rule {
  return { names: [name], verdict, where: [{ argument, bits: 32, is: '==', value }] };
}

/**
 * Families of sockets that are allowed, AF_* of linux/socket.h, in ranges. Between them are AF_ALG, the kernel's crypto
 * (CVE-2026-31431; 38); AF_VSOCK, which reaches the hypervisor whatever the net namespace (40); and those of networks that
 * are gone, whose modules may be left: DECnet, Econet, ATM's SVC, IrDA, WANPIPE, ISDN, CAIF. Docker has it so since 2026.
 */
const families = [
  [0n, 11n],
  [13n, 18n],
  [21n, 22n],
  [24n, 24n],
  [26n, 33n],
  [35n, 36n],
  [39n, 39n],
  [41n, 45n],
] as const;

/** What depends on the arguments. */
const inspected: readonly Rule[] = [
  // A new process or thread, but no new namespace.
  {
    names: ['clone'],
    verdict: 'allow',
    where: [{ argument: 0, bits: 32, is: '==', value: 0n, mask: namespaceFlags }],
  },
  // Its flags are behind a pointer, where a filter cannot look. After ENOSYS, C libraries go back to clone.
  { names: ['clone3'], verdict: ENOSYS, unless: ['CAP_SYS_ADMIN'] },
  // PER_LINUX, PER_LINUX32, each with UNAME26, and the query. The others weaken address space randomization and more.
  ...[0x0n, 0x8n, 0x2_0000n, 0x2_0008n, 0xffff_ffffn].map((persona) => when('personality', 0, persona, 'allow')),
  // EAFNOSUPPORT is what a kernel without them says, and programs fall back; EPERM they report as an error.
  ...families.map(
    ([first, last]): Rule => ({
      names: ['socket'],
      verdict: 'allow',
      where: [
        { argument: 0, bits: 32, is: '>=', value: first },
        { argument: 0, bits: 32, is: '<=', value: last },
      ],
    }),
  ),
  { names: ['socket'], verdict: EAFNOSUPPORT },
  // The way round that in the 32-bit ABI: socketcall(SYS_SOCKET) has the family behind a pointer, and any program on
  // x86-64 can make 32-bit calls. musl uses socket itself; 32-bit glibc as Debian builds it (for Linux >= 3.2) knows
  // socketcall only, and so makes no sockets under this policy. The rest of socketcall works on sockets that exist.
  // Docker leaves it to AppArmor and SELinux, which not every machine has: docs/adr/0019.
  when('socketcall', 0, 1n, ENOSYS),
  allow('socketcall'),
  // TIOCSTI types into a terminal and TIOCLINUX pastes into it. Only 32 bits count (CVE-2019-10063).
  when('ioctl', 1, 0x5412n, EPERM),
  when('ioctl', 1, 0x541cn, EPERM),
  allow('ioctl'),
];

/** What programs should take for missing rather than for forbidden. */
const missing: readonly Rule[] = [
  // libmount and others go on with /proc/self/mountinfo after ENOSYS, but give up after EPERM.
  { names: words('statmount listmount'), verdict: ENOSYS, unless: ['CAP_SYS_ADMIN'] },
  // And libraries of the security modules with /proc/self/attr.
  {
    names: words('lsm_get_self_attr lsm_set_self_attr lsm_list_modules'),
    verdict: ENOSYS,
    unless: ['CAP_SYS_ADMIN'],
  },
  // Numbers without a call behind them in any Linux since 6.8.
  {
    names: words(`_sysctl afs_syscall bdflush break create_module epoll_ctl_old epoll_wait_old ftime
      get_kernel_syms getpmsg gtty idle lock lookup_dcookie mpx nfsservctl prof profil putpmsg query_module
      security stty tuxcall ulimit vserver`),
    verdict: ENOSYS,
  },
];

/**
 * minirun's default policy: what is not listed is refused with EPERM.
 *
 * Left out on purpose are, besides what the comments above name: keys (add_key, request_key, keyctl), because keyrings
 * have no namespace; userfaultfd and io_uring, for their record of kernel bugs; kexec, swap, vm86, uselib, ustat,
 * sysfs and pciconfig, which no container needs.
 */
export const defaultPolicy: Policy = {
  rules: [...gated, ...inspected, ...missing, ...everyday],
  otherwise: EPERM,
  // As runc does: a C library that tries a new call falls back to an old one, which EPERM would prevent.
  unknown: ENOSYS,
  foreign: EPERM,
};
