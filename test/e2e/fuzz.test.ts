import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { fuzzing } from '../support/fuzz.ts';
import { contentsOf, expectSober, expectUntouched } from '../support/hostile.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

/**
 * Whatever minirun is given and whatever has become of its files: it ends with one of its exit codes and says in a line why,
 * and touches nothing but what is its own. `test/support/fuzz.ts` tells how to try more cases, and others.
 */
describe.skipIf(skipOrFail(missingWorld()))('hostile input', () => {
  let world: World;
  let before: Snapshot;
  let canary: string;

  beforeAll(async () => {
    world = await createWorld();
    canary = path.join(world.directory, 'canary');
    fs.mkdirSync(path.join(canary, 'here/etc'), { recursive: true });
    for (const name of ['passwd', 'here/etc/passwd', 'here/a b', 'here/-rf', 'here/*']) {
      fs.writeFileSync(path.join(canary, name), 'do not touch');
    }
    await world.sh('minirun run --rm -p 8080:80 busybox true; minirun system reconcile');
    before = await world.snapshot();
  }, 30_000);
  afterAll(() => world.destroy());

  const run = async (args: readonly string[]) => world.run(args, { cwd: path.join(canary, 'here'), timeout: 20_000 });

  describe('on the command line', () => {
    const hostile = fc.oneof(
      fc.constantFrom(
        ...[
          [
            '',
            ' ',
            '-',
            '--',
            '---',
            '--help=',
            '-rf',
            '--root',
            '--root=',
            '--rm',
            '--format',
            '-v',
            '--volume=',
            '=',
          ],
          [
            '..',
            '../../..',
            '../passwd',
            '/',
            '//',
            '/proc/self/root',
            '/dev/null',
            './here/',
            'a/../b',
            '~',
            '*',
            '?',
          ],
          ['0', '-1', '1e309', '99999999999999999999', '0x10', '٣', '1.5', 'Infinity', '2147483648', '-0'],
          [
            'a\nb',
            '\n',
            '\t',
            '\r',
            '\u001b[2J',
            '\u001b]0;x\u0007',
            '\u009b31m',
            '\u202egnp.exe',
            '\u0000'.replace('\0', '\u0001'),
          ],
          ['é', '日本語', '👩‍👩‍👧', '\ufeff', '\u200b', 'ﬀ', 'İ', 'a'.repeat(5000), '../'.repeat(500)],
          [
            '$(reboot)',
            '`id`',
            '; rm -rf /',
            '| cat',
            '"',
            "'",
            '\\',
            '%s%n',
            '{{.}}',
            '{{',
            '{{range .}}',
            '{{json .}}',
          ],
          ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'true', 'null', '[]', '{}', '{"a":1}'],
          [
            'a=b',
            '=x',
            'key=',
            'type=bind,src=/,dst=/',
            'a:b:c:d',
            ':',
            '::',
            '0.0.0.0/0',
            '::/0',
            '1.2.3.4/33',
            '256.1.1.1',
          ],
          [
            '80:80',
            '0:0',
            '65536:1',
            '1-70000:1',
            '80/xtp',
            '[::1]:80:80',
            '@',
            'x@sha256:zz',
            'x:',
            ':x',
            'UPPER',
            'sha256:',
          ],
        ].flat(),
      ),
      fc.string({ unit: 'binary', maxLength: 40 }).filter((text) => !text.includes('\0')),
      fc.integer().map(String),
      fc.double().map(String),
    );

    /** Each command with its options, as its own help says. */
    const commands = async () => {
      const helpOf = async (words: string[]) => (await run([...words, '--help'])).stdout;
      const namesIn = (help: string) =>
        [...(help.split('Commands:\n')[1] ?? '').matchAll(/^ {2}([a-z][\w-]*)/gm)]
          .map(([, name]) => name as string)
          .filter((name) => name !== 'help');
      const list: { words: string[]; options: string[] }[] = [];
      for (const name of namesIn(await helpOf([]))) {
        const help = await helpOf([name]);
        const words = help.includes('\nCommands:\n') ? namesIn(help).map((sub) => [name, sub]) : [[name]];
        for (const each of words) {
          const text = each.length === 1 ? help : await helpOf(each);
          const options = [...text.matchAll(/(?<=^ {2,8}.*)(?:^| )(--?[a-z][\w-]*)(?=[ ,=]|$)/gm)].map(
            ([, option]) => option as string,
          );
          list.push({ words: each, options: [...new Set(options)] });
        }
      }
      return list;
    };

    /** What a user may tell minirun to write, or to ask of another machine, or to wait for: not with these. */
    const withheld = new Set([
      '-o',
      '--output',
      '-w',
      '--write',
      '-f',
      '--follow',
      '-a',
      '--attach',
      '--cidfile',
      '--log-file',
    ]);
    const waiting = new Set(['events', 'stats', 'pull', 'push', 'login']);

    test('of any command', async () => {
      const all = await commands();
      expect(all.length).toBeGreaterThan(40);
      const untouched = contentsOf(canary);
      const command = fc.oneof(
        { weight: 9, arbitrary: fc.constantFrom(...all) },
        { weight: 1, arbitrary: hostile.map((word) => ({ words: [word], options: [] as string[] })) },
      );
      const lines = command.chain(({ words, options }) => {
        const allowed = options.filter((option) => !withheld.has(option));
        const option = allowed.length === 0 ? hostile : fc.constantFrom(...allowed);
        const pair = fc
          .tuple(option, hostile)
          .chain(([name, value]) => fc.constantFrom([name, value], [`${name}=${value}`], [name]));
        const image = fc.constantFrom(['busybox', 'true'], ['busybox'], []);
        const tail = words[0] === 'run' || words[0] === 'create' ? image : fc.constant([]);
        return fc
          .tuple(
            fc.array(
              fc.oneof(
                pair,
                hostile.map((each) => [each]),
              ),
              { maxLength: 4 },
            ),
            tail,
          )
          .map(([given, rest]) => [
            ...words,
            ...(words[0] === 'run' ? ['--rm', '--pull=never'] : []),
            ...given.flat(),
            ...rest,
          ]);
      });
      await fc.assert(
        fc.asyncProperty(
          lines.filter(([name = '']) => !waiting.has(name)),
          async (args) => {
            expectSober(args, await run(args));
          },
        ),
        { ...fuzzing(1.2), endOnFailure: true },
      );
      expectUntouched(untouched, canary);
      await world.sh(
        'minirun rm -f -a -v; for n in $(minirun network ls -q --filter driver=bridge --format "{{.Name}}"); do minirun network rm $n || true; done; minirun system reconcile',
      );
      await world.sh('minirun system prune -f --volumes; minirun system reconcile');
      await expectNoLeak(before, world);
    }, 120_000);
  });

  describe('in the files of the state', () => {
    const state = (...parts: string[]) => path.join(world.root, ...parts);
    const idOf = (name: string) => fs.readlinkSync(state('names', name));

    /** Files that may be damaged: all but those of a witness, whom nothing is to happen to. */
    const victims = () => {
      const witness = idOf('witness');
      const found = (directory: string) =>
        fs.readdirSync(directory).flatMap((name) => (/^[^.].*\.json$/.test(name) ? [path.join(directory, name)] : []));
      const containers = fs
        .readdirSync(state('containers'))
        .filter((id) => /^[0-9a-f]{64}$/.test(id) && id !== witness);
      return [
        ...found(state()),
        ...found(state('networks')),
        ...found(state('links')),
        state('images/index.json'),
        ...containers.flatMap((id) => [...found(state('containers', id)), state('containers', id, 'exit')]),
      ];
    };

    type Damage = (file: string) => void;
    const json =
      (change: (value: Record<string, unknown>, keys: string[]) => unknown): Damage =>
      (file) => {
        let value: Record<string, unknown> = {};
        try {
          value = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>;
        } catch {
          // Not JSON: `exit`.
        }
        fs.writeFileSync(file, JSON.stringify(change(value, Object.keys(value))));
      };
    const instead =
      (make: (file: string) => void): Damage =>
      (file) => {
        fs.rmSync(file, { recursive: true, force: true });
        make(file);
      };
    const pick = <T>(list: readonly T[], at: number) => list[at % list.length] as T;

    const damages = fc.oneof(
      fc.nat().map((cut): [string, Damage] => [
        `cut off at ${cut}`,
        (file) => {
          const { size } = fs.statSync(file, { throwIfNoEntry: false }) ?? { size: 0 };
          if (size > 0) fs.truncateSync(file, cut % size);
        },
      ]),
      fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })).map(([at, mask]): [string, Damage] => [
        `byte ${at} flipped by ${mask}`,
        (file) => {
          if (!fs.existsSync(file)) return;
          const content = fs.readFileSync(file);
          if (content.length > 0) content[at % content.length] = (content[at % content.length] as number) ^ mask;
          fs.writeFileSync(file, content);
        },
      ]),
      fc.jsonValue().map((value): [string, Damage] => [`is ${JSON.stringify(value).slice(0, 60)}`, json(() => value)]),
      fc
        .nat()
        .map((at): [string, Damage] => [
          `key ${at} deleted`,
          json((value, keys) => Object.fromEntries(Object.entries(value).filter(([key]) => key !== pick(keys, at)))),
        ]),
      fc
        .tuple(fc.nat(), fc.jsonValue())
        .map(([at, other]): [string, Damage] => [
          `key ${at} is ${JSON.stringify(other).slice(0, 60)}`,
          json((value, keys) => ({ ...value, [pick(keys, at) ?? 'x']: other })),
        ]),
      fc.constantFrom<[string, Damage]>(
        ['empty', instead((file) => fs.writeFileSync(file, ''))],
        ['zeros', instead((file) => fs.writeFileSync(file, Buffer.alloc(512)))],
        ['gone', instead(() => {})],
        ['a directory', instead((file) => fs.mkdirSync(file))],
        ['a link', instead((file) => fs.symlinkSync(path.join(canary, 'passwd'), file))],
        ['a link to nothing', instead((file) => fs.symlinkSync('/nonexistent/x', file))],
        ['a FIFO', instead((file) => execFileSync('mkfifo', [file], { stdio: 'ignore' }))],
        [
          'deep',
          instead((file) => fs.writeFileSync(file, `{"schema":1,"x":${'['.repeat(50_000)}${']'.repeat(50_000)}}`)),
        ],
        ['bad UTF-8', instead((file) => fs.writeFileSync(file, Buffer.from('7b22ff223a317d', 'hex')))],
      ),
    );

    const looks = [
      ['ps', '-a'],
      ['inspect', 'web'],
      ['network', 'ls'],
      ['images'],
      ['run', '--rm', '--network', 'none', 'busybox', 'true'],
      ['rm', '-f', 'web'],
      ['system', 'reconcile'],
      ['link', 'ls'],
      ['network', 'inspect', 'lab'],
      ['port', 'web'],
      ['start', 'idle'],
      ['restart', '-t', '0', 'web'],
      ['system', 'df'],
      ['logs', 'web'],
      ['network', 'graph'],
    ];

    const build = async () => {
      const list = await run(['ps', '-a', '--format', '{{.Names}} {{.Status}}']);
      const there = new Set(
        list.stdout
          .split('\n')
          .filter((line) => !line.includes('damaged'))
          .map((line) => line.split(' ')[0]),
      );
      if ((await run(['network', 'inspect', 'lab'])).code !== 0)
        expect((await run(['network', 'create', '--subnet', '10.77.0.0/24', 'lab'])).stderr).not.toContain('overlaps');
      const make = async (name: string, ...args: string[]) => {
        if (there.has(name)) return;
        await run(['rm', '-f', name]);
        const made = await run([...args, '--name', name, 'busybox', 'sleep', '1000']);
        // It may be the first to meet the last damage, and say so.
        if (made.code !== 0) throw new Error(`${name}: ${made.stderr}`);
      };
      await make('web', 'run', '-d', '--network', 'lab', '-p', '8080:80');
      await make('idle', 'create');
      if (!fs.existsSync(state('links/web-witness.json')))
        await run(['link', 'add', 'web:eth5', 'witness:eth5', '--addr', '10.5.0.1/24', '--peer-addr', '10.5.0.2/24']);
    };

    test('no command fails to end as it should, and no other container comes to harm', async () => {
      await world.sh(
        'minirun run -d --name witness busybox sleep 1000; minirun network create --subnet 10.77.0.0/24 lab',
      );
      const untouched = contentsOf(canary);
      const { init } = JSON.parse(fs.readFileSync(state('containers', idOf('witness'), 'state.json'), 'utf8')) as {
        init: { pid: number };
      };
      await fc.assert(
        fc.asyncProperty(
          fc.nat(),
          damages,
          fc.shuffledSubarray(looks, { minLength: 2, maxLength: 4 }),
          async (which, [what, damage], commandLines) => {
            await build();
            const file = pick(victims(), which);
            const sound = fs.existsSync(file) ? fs.readFileSync(file) : undefined;
            try {
              damage(file);
            } catch (error) {
              // The last command's supervisor has just taken the container away.
              if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
              throw error;
            }
            try {
              for (const args of [...commandLines, ['ps', '-a', '--format', '{{.Names}} {{.State}}']]) {
                const result = await run(args);
                expectSober(args, result);
                // A schema that is greater is no damage, and everything is refused then.
                if (result.stderr.includes('a newer minirun') && sound !== undefined) fs.writeFileSync(file, sound);
                else if (args.includes('{{.Names}} {{.State}}')) expect(result.stdout).toContain('witness running');
              }
              expect(fs.existsSync(`/proc/${world.host.pid}/root/proc/${init.pid}`)).toBe(true);
            } catch (error) {
              throw new Error(`${path.relative(world.root, file)} ${what}: ${(error as Error).message}`);
            }
          },
        ),
        { ...fuzzing(0.25), endOnFailure: true },
      );
      expectUntouched(untouched, canary);
      await world.sh(`
        minirun rm -f -a -v; for l in $(minirun link ls -q); do minirun link rm $l; done; minirun network rm lab || true
        minirun system prune -f --volumes; minirun system reconcile
        find $MINIRUN_ROOT -name '*.damaged-*' -prune -exec rm -rf {} +`);
      await expectNoLeak(before, world);
    }, 180_000);
  });
});
