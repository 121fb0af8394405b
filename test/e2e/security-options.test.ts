import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('--security-opt', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(before, world);
    await world.destroy();
  });

  const run = async (options: readonly string[], script: string) =>
    world.run(['run', '--rm', '--network', 'none', ...options, 'busybox', 'sh', '-c', script]);
  const opt = (...values: string[]) => values.flatMap((value) => ['--security-opt', value]);
  let profiles = 0;
  const profile = (content: object): string => {
    const file = path.join(world.directory, `profile-${++profiles}.json`);
    fs.writeFileSync(file, JSON.stringify(content));
    return file;
  };
  const inspect = async (name: string, field: string): Promise<unknown> =>
    JSON.parse((await world.run(['inspect', '--format', `{{json ${field}}}`, name])).stdout) as unknown;

  /** Refuses mkdir with EROFS, chmod of one mode, and whatever CAP_NET_ADMIN would open. */
  const refusing = () =>
    profile({
      defaultAction: 'SCMP_ACT_ALLOW',
      archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
      syscalls: [
        { names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 30 },
        {
          names: ['chmod'],
          action: 'SCMP_ACT_ERRNO',
          errnoRet: 28,
          args: [{ index: 1, value: 0o777, valueTwo: 0o700, op: 'SCMP_CMP_MASKED_EQ' }],
        },
        { names: ['chroot'], action: 'SCMP_ACT_ERRNO', excludes: { caps: ['CAP_NET_ADMIN'] } },
        { names: ['no_such_call_yet'], action: 'SCMP_ACT_ERRNO' },
      ],
    });

  test('seccomp=FILE decides by call, argument and capability', async () => {
    const script = 'mkdir /x; touch /f; chmod 755 /f && echo chmod; chmod 700 /f; chroot / true && echo chroot; true';
    const first = await run(opt(`seccomp=${refusing()}`), script);
    expect(first.stdout).toBe('chmod\n');
    expect(first.stderr).toMatch(/Read-only file system[^]*No space left[^]*not permitted/);
    const second = await run([...opt(`seccomp:${refusing()}`), '--cap-add', 'NET_ADMIN'], script);
    expect(second.stdout).toBe('chmod\nchroot\n');
  });

  test('it stays when the file is gone: start, restart, exec', async () => {
    const file = refusing();
    await world.run([
      'run',
      '-d',
      '--name',
      'kept',
      '--network',
      'none',
      ...opt(`seccomp=${file}`),
      'busybox',
      'sleep',
      '600',
    ]);
    fs.rmSync(file);
    const mkdir = async (...flags: string[]) => (await world.run(['exec', ...flags, 'kept', 'mkdir', '/x'])).stderr;
    expect(await mkdir()).toContain('Read-only file system');
    expect(await mkdir('--privileged')).toContain('Read-only file system');
    await world.run(['stop', '-t', '0', 'kept']);
    await world.run(['start', 'kept']);
    expect(await mkdir()).toContain('Read-only file system');
    const [option] = (await inspect('kept', '.HostConfig.SecurityOpt')) as string[];
    const shown = JSON.parse(option?.replace(/^seccomp=/, '') ?? '') as { syscalls: { names: string[] }[] };
    expect(shown.syscalls.map(({ names }) => names[0])).toEqual(['mkdir', 'chmod', 'chroot', 'no_such_call_yet']);
    await world.run(['rm', '-f', 'kept']);
  });

  test("podman's own profile, an allow list with conditions of every kind, runs a shell and refuses mounts", async () => {
    const { stdout, stderr } = await run(
      opt('seccomp=/usr/share/containers/seccomp.json'),
      'mount -t tmpfs t /mnt && echo mounted; ls / | wc -l; ping -c 1 127.0.0.1 | grep -c "0% packet loss"',
    );
    expect(stdout).toMatch(/^\d+\n1\n$/);
    expect(stderr).toContain('warning: /usr/share/containers/seccomp.json: syscalls[');
    expect(stderr).toContain('mount: permission denied');
  });

  test('a privileged container has no filter, unless one was asked for', async () => {
    const seccomp = 'sed -n "s/^Seccomp:.//p" /proc/self/status';
    expect((await run(['--privileged'], seccomp)).stdout).toBe('0\n');
    expect((await run(['--privileged', ...opt('seccomp=builtin')], seccomp)).stdout).toBe('2\n');
    expect((await run(['--privileged', ...opt(`seccomp=${refusing()}`)], `mkdir /x; ${seccomp}`)).stdout).toBe('2\n');
    expect((await run(opt('seccomp=unconfined', 'seccomp=default'), seccomp)).stdout).toBe('2\n');
  });

  test('what init still has to do under the profile is named', async () => {
    const withoutGroups = profile({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['setgroups'], action: 'SCMP_ACT_ERRNO' }],
    });
    const first = await run(opt(`seccomp=${withoutGroups}`), 'true');
    expect(first.code).toBe(125);
    expect(first.stderr).toContain('the seccomp profile does not allow setgroups');
    expect((await run(opt(`seccomp=${withoutGroups}`, 'no-new-privileges'), 'echo fine')).stdout).toBe('fine\n');
    const killing = await run(opt(`seccomp=${profile({ defaultAction: 'SCMP_ACT_KILL_PROCESS' })}`), 'true');
    expect(killing.code).toBe(125);
    expect(killing.stderr).toContain('killed, probably by the seccomp profile');
  });

  test('a profile that cannot be used is refused before anything is made', async () => {
    const tooLong = profile({
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: Array.from({ length: 900 }, (_, index) => ({
        names: ['openat'],
        action: 'SCMP_ACT_ALLOW',
        args: [{ index: 0, value: index, op: 'SCMP_CMP_EQ' }],
      })),
    });
    const misspelt = profile({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ name: 'mkdir', action: 'SCMP_ACT_ERNO' }],
    });
    for (const [file, message] of [
      [tooLong, /instructions, and the kernel takes 4096/],
      [misspelt, /syscalls\[0\]\.action: unknown action "SCMP_ACT_ERNO"/],
      [profile({ defaultAction: 'SCMP_ACT_NOTIFY' }), /SCMP_ACT_NOTIFY hands calls to another program/],
      ['/no/such/profile.json', /cannot read \/no\/such\/profile\.json/],
    ] as const) {
      const { code, stderr } = await run(['--name', 'never', ...opt(`seccomp=${file}`)], 'true');
      expect(stderr).toMatch(message);
      expect({ code, lines: stderr.trim().split('\n').length }).toEqual({ code: 125, lines: 1 });
    }
    expect((await world.run(['ps', '-a', '-q'])).stdout).toBe('');
  });

  test('mask, unmask and systempaths decide what of /proc and /sys is hidden, and inspect shows it', async () => {
    const interrupts = 'wc -l </proc/interrupts';
    expect((await run([], interrupts)).stdout).toBe('0\n');
    expect(Number((await run(opt('unmask=/proc/k*:/proc/inter*'), interrupts)).stdout)).toBeGreaterThan(0);
    const masked = await run(opt('mask=/etc/passwd:/root'), 'wc -c </etc/passwd; ls /sys/firmware; touch /root/x');
    expect(masked.stdout).toBe('0\n');
    expect(masked.stderr).toContain('Read-only file system');
    const places = 'grep -cE " /(proc|sys)/[^ ]*(firmware|bus|irq|timer_list) " /proc/self/mounts';
    expect((await run(opt('systempaths=unconfined'), places)).stdout).toBe('0\n');
    expect(Number((await run([], places)).stdout)).toBeGreaterThan(1);

    await world.run([
      'create',
      '--name',
      'paths',
      '--network',
      'none',
      ...opt('unmask=/proc/*', 'mask=/srv'),
      'busybox',
      'true',
    ]);
    const [hidden, readonly] = [
      (await inspect('paths', '.HostConfig.MaskedPaths')) as string[],
      await inspect('paths', '.HostConfig.ReadonlyPaths'),
    ];
    expect(hidden.filter((place) => place.startsWith('/proc/'))).toEqual([]);
    expect(hidden).toEqual(expect.arrayContaining(['/sys/firmware', '/srv']));
    expect(readonly).toEqual([]);
    await world.run(['rm', 'paths']);
  });

  test('label and apparmor', async () => {
    expect((await run(opt('label=disable', 'apparmor=unconfined'), 'echo fine')).stdout).toBe('fine\n');
    const labelled = await run(opt('label=type:spc_t'), 'true');
    expect(labelled).toMatchObject({ code: 125, stderr: expect.stringContaining('sets no SELinux labels') as string });
    const confined = await run(opt('apparmor=no-such-profile-here'), 'true');
    expect(confined.code).toBe(125);
    expect(confined.stderr).toMatch(/AppArmor is not enabled on this machine|no profile of that name is loaded/);
  });
});
