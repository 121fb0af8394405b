import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { randomBytes } from 'node:crypto';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

const size = 700_000;
const quiet = ['--network', 'none'];
const timed = skipOrFail(missingTool('s6-log'));

describe.skipIf(skipOrFail(missingWorld()))('streams', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', ...quiet, 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterEach(async () => {
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(before, world);
  });
  afterAll(async () => {
    await world.destroy();
  });

  const logs = async (...args: string[]) => world.run(['logs', ...args]);
  /** A container that waits for a file before it goes on. */
  const gate = 'until [ -e /go ]; do usleep 10000; done';
  const open = async (name: string) => world.run(['exec', name, 'touch', '/go']);

  const outputs: [string, string, string][] = [
    ['one line without an end', `head -c ${size} /dev/zero | tr "\\0" x`, 'x'.repeat(size)],
    ['many lines', 'seq 1 120000', Array.from({ length: 120_000 }, (_, index) => `${index + 1}\n`).join('')],
    ['no output', ':', ''],
    ['an empty line and one without an end', 'printf "\\na\\n\\nb"', '\na\n\nb'],
  ];
  for (const [title, script, wanted] of outputs) {
    test(`${title}: intact on stdout and in the log`, async () => {
      const ran = await world.run(['run', '--name', 'front', ...quiet, 'busybox', 'sh', '-c', script]);
      expect({ code: ran.code, stderr: ran.stderr, same: ran.stdout === wanted }).toEqual({
        code: 0,
        stderr: '',
        same: true,
      });
      expect((await logs('front')).stdout === wanted).toBe(true);
      await world.run(['run', '-d', '--name', 'back', ...quiet, 'busybox', 'sh', '-c', script]);
      expect((await world.run(['wait', 'back'])).stdout).toBe('0\n');
      expect((await logs('back')).stdout === wanted).toBe(true);
    });
  }

  test('bytes that are no text', async () => {
    const { stdoutBytes } = await world.run([
      'run',
      '--name',
      'bytes',
      ...quiet,
      'busybox',
      'head',
      '-c',
      '300000',
      '/dev/urandom',
    ]);
    expect(stdoutBytes.length).toBe(300_000);
    // s6-log makes a newline of a NUL, and changes nothing else.
    const logged = timed ? stdoutBytes : Buffer.from(stdoutBytes.map((byte) => (byte === 0 ? 0x0a : byte)));
    expect((await logs('bytes')).stdoutBytes.equals(logged)).toBe(true);
  });

  test('stdout and stderr are told apart', async () => {
    const script = 'echo out; echo err >&2; echo out2; echo err2 >&2';
    const wanted = { stdout: 'out\nout2\n', stderr: 'err\nerr2\n' };
    expect(await world.run(['run', '--name', 'front', ...quiet, 'busybox', 'sh', '-c', script])).toMatchObject(wanted);
    expect(await logs('front')).toMatchObject(wanted);
    await world.run(['run', '-d', '--name', 'back', ...quiet, 'busybox', 'sh', '-c', `${script}; ${gate}`]);
    expect(await world.run(['exec', 'back', 'sh', '-c', script])).toMatchObject(wanted);
    await open('back');
    await world.run(['wait', 'back']);
    expect(await logs('back')).toMatchObject(wanted);
  });

  describe('-i', () => {
    const input = randomBytes(1_500_000);

    test('run: 1.5 MB there and back, and the end', async () => {
      const { code, stdoutBytes, stderr } = await world.run(['run', '--rm', '-i', ...quiet, 'busybox', 'cat'], {
        input,
      });
      expect({ code, stderr, same: stdoutBytes.equals(input) }).toEqual({ code: 0, stderr: '', same: true });
    });

    test('exec: 1.5 MB there and back, and the end', async () => {
      await world.run(['run', '-d', '--name', 'box', ...quiet, 'busybox', 'sleep', '1000']);
      const { code, stdoutBytes, stderr } = await world.run(['exec', '-i', 'box', 'cat'], { input });
      expect({ code, stderr, same: stdoutBytes.equals(input) }).toEqual({ code: 0, stderr: '', same: true });
    });

    test('the end of input is told every time, however slow the reader', async () => {
      await world.host.run(['sh', '-c', 'cat >input'], { input });
      for (let times = 0; times < 15; times++) {
        await world.sh('cat input | minirun run --rm -i --network none busybox cat | cmp - input');
      }
    }, 60_000);

    test('an error ends it at once, though input may come', async () => {
      const running = await world.spawn(['run', '--rm', '-i', ...quiet, 'busybox', '/no/such']);
      expect((await running.exit).code).toBe(127);
    });

    test('a command that reads only a part, or nothing', async () => {
      expect(
        (await world.run(['run', '--rm', '-i', ...quiet, 'busybox', 'head', '-c', '5'], { input })).stdoutBytes.equals(
          input.subarray(0, 5),
        ),
      ).toBe(true);
      expect((await world.run(['run', '--rm', '-i', ...quiet, 'busybox', 'sh', '-c', 'exit 3'], { input })).code).toBe(
        3,
      );
    });

    test('a conversation', async () => {
      const running = await world.spawn([
        'run',
        '--rm',
        '-i',
        ...quiet,
        'busybox',
        'sh',
        '-c',
        'while read line; do echo "got $line"; done; echo end',
      ]);
      running.write('one\n');
      await running.waitFor('got one\n');
      running.write('two\n');
      await running.waitFor('got two\n');
      running.end();
      expect((await running.exit).stdout).toBe('got one\ngot two\nend\n');
    });

    test('without -i standard input is empty', async () => {
      expect((await world.run(['run', '--rm', ...quiet, 'busybox', 'cat'], { input: 'ignored' })).stdout).toBe('');
    });
  });

  test('a reader that goes away ends the command, as in any pipeline', async () => {
    for (const command of ['seq 1 200000', 'yes 1']) {
      expect(await world.sh(`minirun run --rm --network none busybox ${command} | head -n 1`)).toBe('1\n');
    }
  });

  test('a silent command in the foreground is running', async () => {
    // With a thread for every stream that is waited for, nothing else had its turn on a machine with two cores.
    const running = await world.spawn(['run', '--rm', '-i', '--name', 'silent', ...quiet, 'busybox', 'sleep', '1000']);
    let listed = '';
    for (const until = Date.now() + 10_000; listed === '' && Date.now() < until; )
      listed = (await world.run(['ps', '-q'])).stdout;
    expect(listed).toMatch(/^[0-9a-f]{12}\n$/);
    expect((await world.run(['kill', 'silent'])).code).toBe(0);
    expect((await running.exit).code).toBe(137);
  });

  describe('logs', () => {
    test('-f follows to the end', async () => {
      await world.run([
        'run',
        '-d',
        '--name',
        'talker',
        ...quiet,
        'busybox',
        'sh',
        '-c',
        `echo one; ${gate}; echo two; printf three; exit 4`,
      ]);
      const following = await world.spawn(['logs', '-f', 'talker']);
      await following.waitFor('one\n');
      await open('talker');
      expect(await following.exit).toMatchObject({ code: 0, stdout: 'one\ntwo\nthree' });
    });

    test('--tail', async () => {
      await world.run(['run', '--name', 'counter', ...quiet, 'busybox', 'seq', '1', '1000']);
      expect((await logs('--tail', '2', 'counter')).stdout).toBe('999\n1000\n');
      expect((await logs('--tail', '0', 'counter')).stdout).toBe('');
      expect((await logs('-n', 'all', 'counter')).stdout.split('\n').length).toBe(1001);
    });

    test.skipIf(timed)('-t and --since', async () => {
      await world.run([
        'run',
        '-d',
        '--name',
        'clock',
        ...quiet,
        'busybox',
        'sh',
        '-c',
        `echo early; ${gate}; echo late`,
      ]);
      let first = '';
      for (const until = Date.now() + 10_000; first === '' && Date.now() < until; )
        first = (await logs('-t', 'clock')).stdout;
      expect(first).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z early\n$/);
      const moment = new Date().toISOString();
      await open('clock');
      await world.run(['wait', 'clock']);
      expect((await logs('--since', moment, 'clock')).stdout).toBe('late\n');
      expect((await logs('--until', moment, 'clock')).stdout).toBe('early\n');
      expect((await logs('--since', '10m', 'clock')).stdout).toBe('early\nlate\n');
    });

    test('a second start goes on with the same log', async () => {
      await world.run(['run', '--name', 'twice', ...quiet, 'busybox', 'sh', '-c', 'printf x >>/n; cat /n; echo']);
      expect((await world.run(['start', '-a', 'twice'])).stdout).toBe('xx\n');
      await world.run(['start', 'twice']);
      await world.run(['wait', 'twice']);
      expect((await logs('twice')).stdout).toBe('x\nxx\nxxx\n');
    });
  });
});
