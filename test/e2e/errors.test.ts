import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, minirun, type Result, type Snapshot, type World } from '../support/world.ts';

/** Arguments, exit code, and what the one line on stderr must say: what failed or why, and what to do. */
type Case = [title: string, args: string[], says: RegExp, remedy: RegExp, code?: number];

const run = (...flags: string[]): string[] => ['run', '--rm', ...flags, 'busybox', 'true'];

const cases: Case[] = [
  ['unknown image', ['run', '-q', '--rm', 'nosuchimage', 'true'], /cannot pull nosuchimage:latest/, /busybox/],
  ['bad image name', ['run', '--rm', 'Busybox', 'true'], /lower case/, /busybox/],
  ['no image', ['run'], /no image given/, /minirun run/],
  ['unknown user', run('-u', 'nobodyhere'), /unknown user "nobodyhere": the image's \/etc\/passwd/, /uid/],
  ['unknown group', run('-u', '1:nogroup-here'), /unknown group "nogroup-here"/, /gid/],
  ['uid 2147483648', run('-u', '2147483648'), /invalid user "2147483648"/, /smaller/],
  ['gid 2147483648', run('-u', '1:2147483648'), /2147483647/, /smaller/],
  ['negative uid', run('--user=-1'), /negative/, /uid/],
  ['bad name', run('--name', 'a b'), /invalid container name "a b"/, /--name/],
  ['a name that is a path', run('--name', '../x'), /invalid container name/, /--name/],
  [
    'name taken',
    run('--name', 'taken'),
    /the container name "taken" is taken: container [0-9a-f]{12}/,
    /minirun rm -f taken/,
  ],
  ['address outside the pool', run('--ip', '192.0.2.9'), /192\.0\.2\.9.*outside 10\.90\.0\.0\/16/, /subnet/],
  ['address of the gateway', run('--ip', '10.90.0.1'), /gateway/, /another/],
  ['address of the network', run('--ip', '10.90.0.0'), /network address/, /another/],
  ['broadcast address', run('--ip', '10.90.255.255'), /broadcast/, /another/],
  ['address taken', run('--ip', '10.90.7.7'), /10\.90\.7\.7: container taken has it/, /another/],
  ['no address', run('--ip', 'nonsense'), /"nonsense"/, /10\.90/],
  [
    'an address without a network',
    run('--ip', '10.90.7.8', '--network', 'none'),
    /--ip does not go with/,
    /Leave --ip out/,
  ],
  ['unknown network', run('--network', 'nosuchnet'), /nosuchnet/, /minirun network|--network/],
  ['network of no container', run('--network', 'container:nobody'), /no such container/, /minirun ps/],
  ['volume source missing', run('-v', '/no/such:/x'), /\/no\/such: there is no such file or directory/, /mkdir -p/],
  ['volume without a target', run('-v', '/tmp:'), /invalid -v/, /begins with/],
  ['relative volume target', run('-v', '/tmp:x'), /absolute/, /\//],
  ['volume on /', run('-v', '/tmp:/'), /root of the container/, /directory/],
  ['unknown volume mode', run('-v', '/tmp:/x:rx'), /unknown mode "rx"/, /ro or rw/],
  ['--mount without a source', run('--mount', 'type=bind,target=/x'), /needs a source/, /source=/],
  ['two mounts in one place', run('--tmpfs', '/x', '-v', '/tmp:/x'), /duplicate mount point \/x/, /Leave/],
  ['unknown flag', ['run', '--nosuch', 'busybox'], /--nosuch/, /minirun run --help/],
  ['a group without a command', ['network'], /^minirun: network needs a command\./, /minirun network --help/],
  ['too many arguments', ['ps', 'extra'], /too many arguments for 'ps'/, /got 1: extra\. See minirun ps --help/],
  ['unknown command', ['nosuch'], /unknown command "nosuch"/, /--help/],
  ['--rm with --restart', run('--restart', 'always'), /--rm and --restart/, /Leave one/],
  ['unknown restart policy', ['run', '--restart', 'sometimes', 'busybox', 'true'], /"sometimes"/, /on-failure/],
  ['unknown capability', run('--cap-add', 'FLY'), /unknown capability "FLY"/, /capabilities\(7\)/],
  ['unknown signal', run('--stop-signal', 'NOPE'), /"NOPE"/, /TERM/],
  ['bad ulimit', run('--ulimit', 'nofile=x'), /--ulimit/, /NAME/],
  ['soft limit above the hard one', run('--ulimit', 'nofile=20:10'), /above/, /SOFT/],
  ['a sysctl of the machine', run('--sysctl', 'vm.swappiness=1'), /whole machine/, /net\.\*/],
  [
    'a sysctl that does not exist',
    run('--sysctl', 'net.no.such=1'),
    /net\.no\.such=1: this kernel has none/,
    /--sysctl/,
  ],
  ['a working directory that is a file', run('-w', '/etc/passwd'), /not a directory/, /-w/],
  ['relative working directory', run('-w', 'x'), /absolute/, /-w/],
  ['bad hostname', run('-h', 'a_b!'), /invalid hostname/, /-h/],
  ['missing env file', run('--env-file', '/no/such'), /cannot read \/no\/such/, /--env-file/],
  ['variable without a name', run('-e', '=x'), /name/, /NAME=VALUE/],
  ['bad --add-host', run('--add-host', 'db'), /NAME:ADDRESS/, /example/],
  ['bad --dns', run('--dns', 'one.one'), /not an address/, /address/],
  ['bad --pull', run('--pull', 'maybe'), /pull/, /missing, always or never/],
  ['missing rootfs', ['run', '--rm', '--rootfs', '/no/such', 'true'], /no such directory/, /./],
  ['-it without a terminal', run('-it'), /terminal/, /-t/],
  ['-d with --sig-proxy=false', ['run', '-d', '--sig-proxy=false', 'busybox', 'true'], /--sig-proxy/, /Leave/],
  ['nothing to remove', ['rm'], /no container/, /--all/],
  ['exec in no container', ['exec', 'nobody', 'true'], /no container "nobody"/, /minirun ps/, 1],
  ['logs of no container', ['logs', 'nobody'], /no container "nobody"/, /minirun ps/, 1],
  ['stop of no container', ['stop', 'nobody'], /no container "nobody"/, /minirun ps/, 1],
  ['rm of a running one', ['rm', 'taken'], /cannot remove container "taken": it is running/, /rm -f/, 1],
  ['start of no container', ['start', 'nobody'], /no container "nobody"/, /minirun ps/, 1],
];

describe.skipIf(skipOrFail(missingWorld()))('bad input', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    const { code } = await world.run(['run', '-d', '--name', 'taken', '--ip', '10.90.7.7', 'busybox', 'sleep', '1000']);
    expect(code).toBe(0);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.destroy();
  });

  /** One line: what, why, what to do; nothing on stdout; nothing left behind. */
  const expectRefusal = async (
    { code, stdout, stderr }: Result,
    wanted: number,
    says: RegExp,
    remedy: RegExp,
  ): Promise<void> => {
    expect({ code, stdout, stderr }).toEqual({
      code: wanted,
      stdout: '',
      stderr: expect.stringMatching(/^minirun: [^\n]+\.\n$/),
    });
    expect(stderr).toMatch(says);
    expect(stderr).toMatch(remedy);
    expect(stderr).not.toMatch(/internal error|undefined|Error:|EPERM|ENOENT/);
    await expectNoLeak(before, world);
  };

  for (const [title, args, says, remedy, code = 125] of cases) {
    test(title, async () => {
      await expectRefusal(await world.run(args), code, says, remedy);
    });
  }

  test('a cidfile that exists stays as it is, and one of a failed run goes', async () => {
    const cidfile = path.join(world.directory, 'cid');
    fs.writeFileSync(cidfile, 'mine');
    await expectRefusal(await world.run(run('--cidfile', cidfile)), 125, /exists already/, /another file/);
    expect(fs.readFileSync(cidfile, 'utf8')).toBe('mine');
    fs.rmSync(cidfile);
    await expectRefusal(await world.run(run('--cidfile', cidfile, '-u', 'nobodyhere')), 125, /unknown user/, /uid/);
    expect(fs.existsSync(cidfile)).toBe(false);
  });

  test('an init that is slow is gone when the command has ended', async () => {
    // It would go on mounting in a folder that is being deleted.
    await world.sh(`
      printf '#!/bin/sh\nsleep 0.5\nexec /usr/bin/unshare.real "$@"\n' >slow; chmod 755 slow
      mkdir upper work; mount -t overlay -o lowerdir=/usr/bin,upperdir=upper,workdir=work overlay /usr/bin
      mv /usr/bin/unshare /usr/bin/unshare.real; cp slow /usr/bin/unshare`);
    try {
      const { code, stderr } = await world.run(run('--ip', '10.90.0.1'));
      const after = await world.snapshot();
      expect({ code, stderr }).toEqual({ code: 125, stderr: expect.stringContaining('gateway') as string });
      expect(after.processes).toEqual(before.processes);
      expect(after.containers).toEqual(before.containers);
    } finally {
      await world.sh('umount -l /usr/bin');
    }
    await expectNoLeak(before, world);
  });

  test('a foreign network namespace of that name is neither used nor deleted', async () => {
    await world.sh('ip netns add mine');
    const result = await world.run(run('--name', 'mine'));
    expect(fs.existsSync(world.host.path('/run/netns/mine'))).toBe(true);
    await world.sh('ip netns del mine');
    await expectRefusal(result, 125, /network namespace "mine".*exists already/, /ip netns del mine/);
  });

  test('a reader that has gone: silence, and the code of SIGPIPE', async () => {
    for (const words of [
      'ps',
      'network ls',
      '--help',
      'run -d --help',
      `run -d --rm --network none ${run().slice(-2).join(' ')}`,
      `run --explain --network none ${run().slice(-2).join(' ')}`,
      'inspect taken',
      `create --name unread ${run().slice(-2).join(' ')}`,
    ]) {
      const script = `exec 3> >(true); wait $!; ${minirun} ${words} >&3; echo "code $?" >&2`;
      expect(await world.host.run(['bash', '-c', script])).toMatchObject({ stdout: '', stderr: 'code 141\n' });
    }
    await world.sh('minirun rm unread');
  });

  test('another user, and the state directory of root', async () => {
    for (const args of [run(), ['ps']]) {
      const result = await world.host.run(['setpriv', '--reuid', '65534', '--clear-groups', minirun, ...args]);
      await expectRefusal(result, 125, /state directory .*: it is in a directory that is closed to you/, /--root DIR/);
    }
  });

  for (const [tool, name, args] of [
    ['ip', 'iproute2', run()],
    ['unshare', 'util-linux', run('--network', 'none')],
    ['nsenter', 'util-linux', ['exec', 'taken', 'true']],
    ['tcpdump', 'tcpdump', ['capture', 'taken']],
    ['traceroute', 'traceroute', ['trace', 'taken', '127.0.0.1']],
  ] as const) {
    test(`no ${tool} on this machine`, async () => {
      const result = await world.host.run(['unshare', '--mount', 'sh', '-c', hide(tool), 'hide', minirun, ...args]);
      await expectRefusal(result, 125, new RegExp(`no ${tool} \\(package ${name}\\)`), /bin\/setup/);
    });
  }

  test('what was there is untouched', async () => {
    expect((await world.run(['exec', 'taken', 'echo', 'alive'])).stdout).toBe('alive\n');
    expect((await world.run(['rm', '-f', 'taken'])).stdout).toBe('taken\n');
  });

  test('no iptables on this machine: what needs none works', async () => {
    const hidden = ['unshare', '--mount', 'sh', '-c', hide('iptables-save'), 'hide', minirun];
    expect(await world.host.run([...hidden, ...run('--network', 'none')])).toMatchObject({ code: 0, stderr: '' });
    expect(await world.host.run([...hidden, 'system', 'reconcile'])).toMatchObject({
      code: 0,
      stdout: 'nothing to mend\n',
      stderr: '',
    });
  });
});

/** A script that runs a command on a machine without that tool: the two folders are replaced by links to their files. */
function hide(tool: string): string {
  return `
    mkdir -p old/bin old/sbin
    mount --bind /usr/bin old/bin
    mount --bind /usr/sbin old/sbin
    for folder in bin sbin; do
      mount -t tmpfs tmpfs /usr/$folder
      old/bin/cp -as "$PWD/old/$folder/." /usr/$folder
    done
    rm -f /usr/bin/${tool} /usr/sbin/${tool}
    exec "$@"`;
}
