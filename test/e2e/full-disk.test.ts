import { describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak } from '../support/world.ts';

/** A file system that is really full (faults.test.ts has one that is full at every moment). */
describe.skipIf(skipOrFail(missingWorld()))('a full disk', () => {
  test('containers on it end with their exit code, can be stopped and removed, and what made it full can be', async () => {
    await using world = await createWorld();
    // The room that is kept aside is there from the beginning; the rest is soon filled.
    const root = `${world.directory}/small`;
    await world.sh(`mkdir ${root}; mount -t tmpfs -o size=24m,mode=700 small ${root}`);
    const env = { MINIRUN_ROOT: root };
    const sh = async (script: string) => world.sh(script, { env });
    await sh('minirun run --rm busybox true; minirun system reconcile');
    const clean = await world.snapshot();
    await sh(`
      minirun run -d --name polite busybox sh -c 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done'
      minirun create --name old busybox true
      until minirun logs polite | grep -q ready; do sleep 0.05; done
      minirun run -d --name greedy busybox sh -c 'while [ ! -e /go ]; do sleep 0.05; done; cat /dev/zero >/full; while [ ! -e /end ]; do sleep 0.05; done; exit 9'
      minirun exec greedy touch /go
      until [ "$(df --output=avail ${root} | tail -n 1)" -eq 0 ]; do sleep 0.05; done`);
    for (const command of [
      ['run', '--rm', 'busybox', 'true'],
      ['run', '-d', '--name', 'more', 'busybox', 'true'],
      ['create', 'busybox', 'true'],
    ]) {
      const { code, stderr } = await world.run(command, { env });
      expect(`${code} ${stderr}`).toMatch(/^125 minirun: [^\n]*no space left on [^\n]*\n$/);
    }
    expect(await sh("minirun ps -a --format '{{.Names}} {{.State}}'")).toBe(
      'greedy running\nold created\npolite running\n',
    );
    // It ends by itself, and by force.
    await sh('minirun exec greedy rm /bin/nothing 2>/dev/null || :; minirun stop polite; minirun rm old');
    expect(await sh("minirun inspect --format '{{.State.ExitCode}} {{.State.Status}}' polite")).toBe('7 exited\n');
    await sh('minirun rm -f greedy; minirun rm polite');
    // A logger that could not write may have waited for room, and its supervisor for it.
    expect(await sh('minirun system reconcile')).toMatch(/^(nothing to mend|(process [^\n]*: ended\n?)+)\n?$/);
    await sh('minirun run --rm busybox true; minirun system reconcile');
    expect(await sh(`stat -c %s ${root}/reserve`)).toBe('262144\n');
    await expectNoLeak(clean, world);
    await world.sh(`umount ${root}`);
  }, 60_000);

  test('a run that fails when its command has printed something ends; one that cannot keep its log goes on without', async () => {
    await using world = await createWorld();
    await world.sh('minirun run --rm --network none busybox true');
    const run = [
      'run',
      '--name',
      'victim',
      '--network',
      'none',
      'busybox',
      'sh',
      '-c',
      'echo hello; sleep 0.2; exit 3',
    ];
    const failed = await world.run(run, { env: { MINIRUN_FAULT: 'fail:process.started' }, timeout: 10_000 });
    expect(`${failed.code} ${failed.stderr}`).toBe('125 minirun: injected fault: process.started\n');
    // Nobody can make the folder of a log where a file is called so.
    await world.sh(`minirun create --name victim --network none busybox sh -c 'echo hello; exit 3'
      touch ${world.root}/containers/$(readlink ${world.root}/names/victim)/log`);
    const ended = await world.run(['start', '-a', 'victim'], { timeout: 10_000 });
    expect([ended.code, ended.stdout, ended.stderr]).toEqual([3, 'hello\n', '']);
  }, 30_000);
});
