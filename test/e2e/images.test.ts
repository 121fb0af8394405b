import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { compareTrees, readTree } from '../support/tree.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

const quiet = ['--network', 'none'];

interface Inspected {
  Id: string;
  RepoTags: string[];
  Comment: string;
  Author: string;
  Config: Record<string, unknown>;
  RootFS: { Layers: string[] };
}

/** Looking after images: names, history, pruning, committing, exporting, what takes how much, whether all is whole. */
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('setfattr')))('images', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', ...quiet, 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterEach(async () => {
    await world.run(['rm', '-f', '-v', '-a']);
    // All but busybox.
    const others = (await ok('images', '-q', '--no-trunc')).split('\n').filter((id) => id !== '' && id !== busybox());
    if (others.length > 0) await world.run(['rmi', '-f', ...new Set(others)]);
    const index = readIndex();
    for (const name of Object.keys(index.references))
      if (!name.endsWith('/busybox:latest')) await world.run(['rmi', name]);
    expect((await world.run(['system', 'check'])).stdout).toBe('1 image, 1 layer, 0 archives: no damage\n');
    expect(staged()).toEqual([]);
    await expectNoLeak(before, world);
  });
  afterAll(async () => {
    await world.destroy();
  });

  /** What it prints; fails unless it exits with 0 and says nothing on stderr. */
  const ok = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await world.run(args);
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
    return stdout;
  };
  const place = (...names: string[]) => path.join(world.root, 'images', ...names);
  const readIndex = () =>
    JSON.parse(fs.readFileSync(place('index.json'), 'utf8')) as {
      references: Record<string, { id: string }>;
      layers: Record<string, { blob?: { digest: string } }>;
    };
  const busybox = () => readIndex().references['docker.io/library/busybox:latest']?.id ?? '';
  const staged = () => fs.readdirSync(place()).filter((name) => name.startsWith('.'));
  const layers = () => fs.readdirSync(place('layers')).toSorted();
  const inspect = async (name: string) =>
    (JSON.parse(await ok('image', 'inspect', name)) as Inspected[])[0] as Inspected;
  /** A container that has run a script, and the image of it. @returns the image's id */
  const made = async (name: string, script: string, ...options: readonly string[]): Promise<string> => {
    const container = `of-${name.replace(':', '-')}`;
    await ok('run', '--name', container, ...quiet, 'busybox', 'sh', '-c', script);
    const id = (await ok('commit', ...options, container, name)).trim();
    await ok('rm', container);
    return id;
  };
  const failure = async (...args: readonly string[]): Promise<Result> => {
    const result = await world.run(args);
    expect({ args, code: result.code }).toEqual({ args, code: 1 });
    expect(result.stderr).toMatch(/^minirun: [^\n]+\n$/);
    return result;
  };

  describe('names', () => {
    test('tag gives a further name, and moves one', async () => {
      await ok('tag', 'busybox', 'mine:1');
      await ok('image', 'tag', busybox().slice(7, 19), 'host.example:5000/a/b');
      expect((await inspect('mine:1')).RepoTags.toSorted()).toEqual([
        'busybox:latest',
        'host.example:5000/a/b:latest',
        'mine:1',
      ]);
      const other = await made('other', 'echo >/x');
      await ok('tag', 'other', 'mine:1');
      expect((await inspect('mine:1')).Id).toBe(other);
      expect(await ok('rmi', 'mine:1', 'host.example:5000/a/b')).toBe(
        'Untagged: mine:1\nUntagged: host.example:5000/a/b:latest\n',
      );
    });

    test('what is wrong is refused', async () => {
      expect((await failure('tag', 'nothing', 'x')).stderr).toContain('it is not on this machine');
      expect((await failure('tag', 'busybox', 'Upper')).stderr).toContain('lower case');
      expect((await failure('tag', 'busybox', `x@sha256:${'0'.repeat(64)}`)).stderr).toContain('a digest follows');
    });

    test('the image group has docker’s commands', async () => {
      expect(await ok('image', 'ls', '-q')).toBe(await ok('images', '-q'));
      expect(await ok('image', 'list', '--no-trunc')).toBe(await ok('images', '--no-trunc'));
      expect((await failure('image', 'inspect', 'nothing')).stdout).toBe('[]\n');
      await ok('tag', 'busybox', 'gone');
      expect(await ok('image', 'rm', 'gone')).toBe('Untagged: gone:latest\n');
    });
  });

  test('sync-layers: a layer is on the disk before anything names it', async () => {
    const [config, log, fake] = ['sync.yaml', 'sync.log', 'fake-sync'].map((name) => path.join(world.directory, name));
    fs.writeFileSync(config as string, 'sync-layers: true\n');
    // What is said when it is called: its arguments, and which layers are there already.
    const script = `#!/bin/sh\necho "$*" $(ls ${place('layers')} | wc -l) >>${log}\n`;
    fs.writeFileSync(fake as string, script, { mode: 0o755 });
    await world.sh(`mount --bind ${fake} "$(readlink -f "$(command -v sync)")"`);
    try {
      await made('lazy', 'echo 1 >/x');
      expect(fs.existsSync(log as string)).toBe(false);
      await ok('run', '--name', 'careful', ...quiet, 'busybox', 'sh', '-c', 'echo 2 >/x');
      await world.sh('minirun commit careful', { env: { MINIRUN_CONFIG: config as string } });
      expect(fs.readFileSync(log as string, 'utf8')).toMatch(/^-f \S+\/\.staging-\S+ 2\n$/);
    } finally {
      await world.sh(`umount "$(readlink -f "$(command -v sync)")"`);
    }
  });

  describe('history', () => {
    test('each step with its size; what a stranger wrote cannot move the cursor', async () => {
      await made('one:1', 'head -c 1500 /dev/zero >/file', '-m', 'bad \u001b[2J end', '-c', 'CMD ["x"]');
      const lines = (await ok('history', '--format', '{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}', 'one:1')).split(
        '\n',
      );
      expect(lines[0]).toMatch(/^[0-9a-f]{12}\|sh -c head -c 1500 \/dev\/zero >\/file\|1\.5kB\|bad \?\[2J end$/);
      expect(lines[1]).toMatch(/^<missing>\|minirun: [^|]*…\|\d\.\d+MB\|$/);
      expect(lines.slice(2)).toEqual(['']);
      const [full] = (await ok('image', 'history', '-q', '--no-trunc', 'one:1')).split('\n');
      expect(full).toBe((await inspect('one:1')).Id);
      expect(await ok('history', '--no-human', '--format', '{{.Size}} {{.CreatedAt}}', 'one:1')).toMatch(
        /^1500 20\d\d-[\d:.TZ-]+\n\d{7} N\/A\n$/,
      );
      await failure('history', 'nothing');
    });
  });

  describe('commit', () => {
    const script = `
      mkdir -p /d/sub /etc/opt; echo one >/d/file; ln /d/file /d/linked; ln -s /d/file /d/link; mkfifo /d/fifo
      chown 1000:1001 /d/file; chmod 6755 /d/file; touch -d @1000000000 /d/sub /d/file
      rm /bin/busybox /etc/group; rm -r /var; mkdir /var; echo new >/var/new; chmod 711 /root`;

    test('the new image holds what the container had, entry by entry', async () => {
      await ok('run', '--name', 'source', ...quiet, 'busybox', 'sh', '-c', script);
      const upper = (await ok('inspect', '-f', '{{.GraphDriver.Data.UpperDir}}', 'source')).trim();
      await world.sh(`setfattr -n user.note -v kept ${upper}/d/file; setcap cap_net_raw+ep ${upper}/d/linked`);
      await ok('commit', 'source', 'copy:1');
      await ok('create', '--name', 'second', ...quiet, 'copy:1', 'true');
      for (const name of ['source', 'second']) {
        await ok('export', '-o', `${name}.tar`, name);
        await world.sh(`mkdir ${name}; tar --xattrs --xattrs-include='*' -xpf ${name}.tar -C ${name}`);
      }
      const trees = await Promise.all(
        ['source', 'second'].map(async (name) => readTree(world.host, path.join(world.directory, name))),
      );
      const [one, two] = trees as [(typeof trees)[0], (typeof trees)[0]];
      expect(compareTrees(one, two, /^\/$/)).toEqual([]);
      expect(one.get('/d/file')).toMatchObject({ mode: '6755', uid: 1000, gid: 1001, links: '/d/file' });
      expect(one.get('/d/linked')?.xattrs?.['user.note']).toBe(Buffer.from('kept').toString('hex'));
      expect(one.get('/d/linked')?.xattrs?.['security.capability']).toBeDefined();
      expect(one.has('/bin/busybox') || one.has('/etc/group') || one.has('/var/spool')).toBe(false);
      await world.sh('rm -r source second source.tar second.tar');
    });

    test('the container’s settings become the image’s, under those of --change', async () => {
      const id = await ok(
        'create',
        '--name',
        'set',
        ...quiet,
        '-e',
        'A=1',
        '-w',
        '/srv',
        '-u',
        '7:8',
        '-l',
        'x=y',
        '-t',
        '--expose',
        '80',
        '--stop-signal',
        'USR1',
        '--entrypoint',
        '/bin/sh',
        'busybox',
        '-c',
        'echo hi',
      ); // prettier-ignore
      await ok(
        'commit',
        '-a',
        'Me <me@example>',
        '-m',
        'why',
        '-c',
        'ENV B=2 A=3',
        '-c',
        'LABEL z="1 2"',
        'set',
        'set:1',
      );
      const { Config, Author, Comment, RootFS } = await inspect('set:1');
      expect({ Author, Comment }).toEqual({ Author: 'Me <me@example>', Comment: 'why' });
      expect(Config).toMatchObject({
        Entrypoint: ['/bin/sh'],
        Cmd: ['-c', 'echo hi'],
        User: '7:8',
        WorkingDir: '/srv',
        Labels: { x: 'y', z: '1 2' },
        ExposedPorts: { '80/tcp': {} },
        StopSignal: 'SIGUSR1',
      });
      const variables = (Config.Env as string[]).toSorted();
      expect(variables).toContain('A=3');
      expect(variables).toContain('B=2');
      expect(variables.filter((entry) => /^(HOSTNAME|TERM)=/.test(entry) || entry.includes(id.slice(0, 12)))).toEqual(
        [],
      );
      // Nothing was written: no layer, but a step of its own.
      expect(RootFS.Layers).toEqual((await inspect('busybox')).RootFS.Layers);
      expect(await ok('history', '--format', '{{.Size}}', 'set:1')).toMatch(/^0B\n[\d.]+MB\n$/);
      await ok('commit', '-c', 'ENTRYPOINT ["/bin/true"]', 'set', 'set:2');
      expect((await inspect('set:2')).Config).toMatchObject({ Entrypoint: ['/bin/true'], Cmd: null });
    });

    test('a container that runs goes on, and what is in volumes stays out', async () => {
      const volume = path.join(world.directory, 'volume');
      fs.mkdirSync(volume);
      await ok(
        'run',
        '-d',
        '--name',
        'live',
        ...quiet,
        '-v',
        `${volume}:/vol`,
        '-v',
        '/anon',
        'busybox',
        'sleep',
        '1000',
      );
      await ok('exec', 'live', 'sh', '-c', 'echo a >/vol/a; echo b >/anon/b; echo c >/c');
      await ok('commit', 'live', 'live:1');
      expect(await ok('ps', '--format', '{{.Names}} {{.State}}')).toBe('live running\n');
      expect(await ok('run', '--rm', ...quiet, 'live:1', 'sh', '-c', 'cat /c; ls /vol /anon')).toBe(
        'c\n/anon:\n\n/vol:\n',
      );
      const names = (await world.sh('minirun export live | tar t')).split('\n');
      expect(names).toContain('c');
      expect(names).toContain('vol/');
      expect(names).toContain('proc/');
      expect(names.filter((name) => /^(vol|anon|proc|sys|dev)\/./.test(name))).toEqual([]);
      fs.rmSync(volume, { recursive: true });
    });

    test('what cannot be is refused before anything is done', async () => {
      await ok('create', '--name', 'plain', ...quiet, 'busybox', 'true');
      expect((await failure('commit', '-c', 'RUN x', 'plain')).stderr).toContain('"RUN" is not known here');
      expect((await failure('commit', 'plain', 'Bad')).stderr).toContain('lower case');
      expect((await failure('commit', 'nobody')).stderr).toContain('no container "nobody"');
      expect((await failure('commit', '--pause', 'plain')).stderr).toContain('not built yet');
      await ok('create', '--name', 'folder', ...quiet, '--rootfs', world.directory, '/x');
      expect((await failure('commit', 'folder')).stderr).toContain('--rootfs');
    });

    test('killed at any moment it leaves nothing but what is whole', async () => {
      await ok('run', '--name', 'victim', ...quiet, 'busybox', 'sh', '-c', 'echo >/x; rm /etc/group');
      let attempt = 0;
      const places: string[] = [];
      for (;;) {
        const env = { MINIRUN_FAULT: `kill:${++attempt}` };
        const { code, signal, stderr } = await world.run(['commit', 'victim', 'victim:1'], { env });
        if (signal === undefined) {
          expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
          break;
        }
        places.push(stderr.trim());
        await ok('system', 'reconcile');
        expect(staged()).toEqual([]);
        const check = await ok('system', 'check');
        // The last boundaries are behind the moment at which the image is there.
        expect(check).toMatch(/^(1 image, 1 layer, 0 archives|2 images, 2 layers, 1 archive): no damage\n$/);
      }
      expect(places.filter((line) => /commit\.(packed|unpacked|staged)/.test(line))).toHaveLength(3);
    }, 60_000);
  });

  describe('export', () => {
    test('to a terminal it is refused; a file is there only when it is whole', async () => {
      await ok('create', '--name', 'out', ...quiet, 'busybox', 'true');
      const terminal = await world.run(['export', 'out'], { tty: true });
      expect(terminal.code).toBe(1);
      expect(terminal.stdout).toContain('refusing to write a tar archive at a terminal');
      const file = path.join(world.directory, 'out.tar');
      fs.writeFileSync(file, 'old');
      await failure('export', '-o', file, 'nobody');
      expect(fs.readFileSync(file, 'utf8')).toBe('old');
      await ok('export', '-o', file, 'out');
      expect(await world.sh(`tar tf ${file} bin/busybox`)).toBe('bin/busybox\n');
      expect(fs.readdirSync(world.directory).filter((name) => name.includes('.part'))).toEqual([]);
      expect((await failure('export', '-o', world.directory, 'out')).stderr).toContain('it is a directory');
      expect(await world.sh('minirun export out | head -c 10 | wc -c')).toBe('10\n');
      fs.rmSync(file);
    });

    test('what was exported can be imported again', async () => {
      await ok('run', '--name', 'there', ...quiet, 'busybox', 'sh', '-c', 'echo back >/file');
      await world.sh('minirun export there | minirun import - back:1');
      expect(await ok('run', '--rm', ...quiet, 'back:1', 'cat', '/file')).toBe('back\n');
    });
  });

  describe('what is removed, and what is not', () => {
    test('images share layers: a layer goes with the last one', async () => {
      const [base] = layers();
      await made('one:1', 'echo 1 >/one');
      await ok('run', '--name', 'next', ...quiet, 'one:1', 'sh', '-c', 'echo 2 >/two');
      await ok('commit', 'next', 'two:1');
      await ok('rm', 'next');
      expect(layers()).toHaveLength(3);
      await ok('rmi', 'one:1');
      expect(layers()).toHaveLength(3);
      expect(await ok('run', '--rm', ...quiet, 'two:1', 'cat', '/one', '/two')).toBe('1\n2\n');
      await ok('rmi', 'two:1');
      expect(layers()).toEqual([base as string]);
      expect(fs.readdirSync(place('blobs', 'sha256'))).toEqual([]);
    });

    test('never what a running container uses', async () => {
      const id = await made('used:1', 'echo here >/here');
      await ok('run', '-d', '--name', 'user', ...quiet, 'used:1', 'sleep', '1000');
      expect((await failure('rmi', 'used:1')).stderr).toContain('container user uses its image');
      expect(await ok('image', 'prune', '-a', '-f')).not.toContain(id);
      expect(await ok('rmi', '-f', 'used:1')).toBe('Untagged: used:1\n');
      await ok('image', 'prune', '-a', '-f');
      await ok('system', 'prune', '-a', '-f', '--volumes');
      expect(await ok('exec', 'user', 'cat', '/here')).toBe('here\n');
      await ok('restart', '-t', '0', 'user');
      expect(await ok('exec', 'user', 'cat', '/here')).toBe('here\n');
      await ok('rm', '-f', 'user');
      expect(await ok('image', 'prune', '-f')).toContain(`deleted: ${id}\n`);
      await ok('run', '--rm', ...quiet, 'busybox', 'true');
    });

    test('prune: only without a name, or all that nobody uses; by age and label', async () => {
      const first = await made('moved:1', 'echo 1 >/x', '-c', 'LABEL keep=yes');
      const second = await made('moved:1', 'echo 2 >/x');
      expect(await ok('image', 'prune', '-f', '--filter', 'label=other')).toBe('Total reclaimed space: 0B\n');
      expect(await ok('image', 'prune', '-f', '--filter', 'label!=keep')).toBe('Total reclaimed space: 0B\n');
      expect(await ok('image', 'prune', '-f', '--filter', 'until=1h')).toBe('Total reclaimed space: 0B\n');
      expect((await failure('image', 'prune', '-f', '--filter', 'until=soon')).stderr).toContain('no point in time');
      const pruned = await ok('image', 'prune', '-f', '--filter', 'label=keep=yes');
      expect(pruned).toContain(`Deleted Images:\ndeleted: ${first}\n`);
      expect(pruned).toMatch(/\nTotal reclaimed space: \d+B\n$/);
      await ok('create', '--name', 'holder', ...quiet, 'busybox', 'true');
      expect(await ok('image', 'prune', '-a', '-f')).toContain(`untagged: moved:1\ndeleted: ${second}\n`);
    });

    test('prune asks, and does nothing without an answer', async () => {
      await made('moved:1', 'echo 1 >/x');
      await made('moved:1', 'echo 2 >/x');
      const unnamed = async () => (await ok('images', '-q', '-f', 'dangling=true')).split('\n').length - 1;
      expect((await failure('image', 'prune')).stderr).toContain('there was no answer');
      expect((await world.run(['image', 'prune'], { input: 'n\n' })).code).toBe(0);
      expect(await unnamed()).toBe(1);
      const answered = await world.run(['image', 'prune'], { input: 'y\n' });
      expect(answered.stdout).toContain('WARNING! This will remove all dangling images.');
      expect(answered.stdout).toContain('Deleted Images:');
      expect(await unnamed()).toBe(0);
    });

    test('system prune: stopped containers, networks, images; volumes when asked to', async () => {
      await ok('network', 'create', 'lonely');
      const stopped = (await ok('create', '--name', 'stopped', ...quiet, '-v', '/anon', 'busybox', 'true')).trim();
      await ok('run', '-d', '--name', 'live', ...quiet, 'busybox', 'sleep', '1000');
      const pruned = await ok('system', 'prune', '-f');
      expect(pruned).toStartWith(
        `Deleted Containers:\n${stopped}\n\nDeleted Networks:\nlonely\n\nTotal reclaimed space: `,
      );
      expect(fs.readdirSync(path.join(world.root, 'volumes'))).toHaveLength(1);
      expect(await ok('system', 'prune', '-f', '--volumes')).toMatch(/^Deleted Volumes:\n[0-9a-f]{64}\n\nTotal/);
      expect(await ok('ps', '-a', '--format', '{{.Names}}')).toBe('live\n');
      expect((await failure('system', 'prune')).stderr).toContain('there was no answer');
    });
  });

  test('system df counts what is shared once', async () => {
    const rows = async () =>
      Object.fromEntries(
        (await ok('system', 'df', '--format', '{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}'))
          .trim()
          .split('\n')
          .map((line) => [line.slice(0, line.indexOf('|')), line.slice(line.indexOf('|') + 1)]),
      ) as Record<string, string>;
    const { Images } = await rows();
    const base = /^1\|0\|([\d.]+MB)\|/.exec(Images ?? '')?.[1] ?? '';
    expect(base).not.toBe('');
    await made('big:1', 'head -c 3000000 /dev/zero >/zeros');
    await ok(
      'run',
      '--name',
      'writer',
      ...quiet,
      '-v',
      '/anon',
      'busybox',
      'sh',
      '-c',
      'head -c 2500 /dev/zero >/f; head -c 1500 /dev/zero >/anon/f; ln /f /g',
    );
    const after = await rows();
    expect(after.Images).toBe(`2|1|${(Number.parseFloat(base) + 3).toPrecision(4).replace(/0+$/, '')}MB|3MB (60%)`);
    expect(after.Containers).toBe('1|0|2.5kB|2.5kB (100%)');
    expect(after['Local Volumes']).toBe('1|1|1.5kB|0B (0%)');
    expect(after.Archives).toMatch(/^1\|0\|\d+(\.\d+)?kB\|\d+(\.\d+)?kB \(100%\)$/);
    const details = await ok('system', 'df', '-v');
    expect(details).toMatch(new RegExp(`\\nbig +1 +[0-9a-f]{12} .* ${base.replace('.', '\\.')} +3MB +0\\n`));
    expect(details).toMatch(/\n[0-9a-f]{64} +1 +1\.5kB\n/);
  });

  describe('system check', () => {
    /** The one layer of an image that busybox does not have. */
    const ownLayer = async (name: string) => ((await inspect(name)).RootFS.Layers.at(-1) ?? '').slice(7);
    const archiveOf = (layer: string) =>
      place('blobs', 'sha256', (readIndex().layers[`sha256:${layer}`]?.blob?.digest ?? '').slice(7));
    const check = async (...options: readonly string[]) => {
      const { code, stdout, stderr } = await world.run(['system', 'check', ...options]);
      expect(stderr).toBe('');
      return { code, lines: stdout.trimEnd().split('\n') };
    };

    test('a flipped byte in an archive; the layer itself stays usable', async () => {
      await made('hurt:1', 'head -c 5000 /dev/urandom >/x');
      const file = archiveOf(await ownLayer('hurt:1'));
      const bytes = fs.readFileSync(file);
      bytes[1000] = (bytes[1000] ?? 0) ^ 1;
      fs.writeFileSync(file, bytes);
      expect(await check('--quick')).toMatchObject({ code: 0 });
      const { code, lines } = await check();
      expect(code).toBe(1);
      expect(lines).toHaveLength(1);
      expect(lines[0]).toMatch(/^archive [0-9a-f]{12} of layer [0-9a-f]{12} is damaged: .*system check --repair\.$/);
      expect(await check('--repair')).toMatchObject({ code: 0, lines: [expect.stringMatching(/^repaired: archive/)] });
      expect(await check()).toEqual({
        code: 0,
        lines: ['2 images, 2 layers, 0 archives: no damage'],
      });
      expect(fs.existsSync(file)).toBe(false);
      await ok('run', '--rm', ...quiet, 'hurt:1', 'test', '-s', '/x');
    });

    test('a missing layer takes its image along, and leaves the others', async () => {
      await made('gone:1', 'echo >/x');
      fs.rmSync(place('layers', await ownLayer('gone:1')), { recursive: true });
      const { code, lines } = await check('--quick');
      expect({ code, lines }).toEqual({
        code: 1,
        lines: [expect.stringMatching(/^layer [0-9a-f]{12} of image gone:1: its directory is missing\. Repair it: /)],
      });
      expect((await check('--repair')).code).toBe(0);
      expect(await ok('images', '--format', '{{.Repository}}')).toBe('busybox\n');
    });

    test('what a container uses is kept, whatever is wrong with it', async () => {
      const id = await made('kept:1', 'echo here >/here');
      await ok('run', '-d', '--name', 'user', ...quiet, 'kept:1', 'sleep', '1000');
      const config = place('configs', `${id.slice(7)}.json`);
      const text = fs.readFileSync(config);
      fs.writeFileSync(config, text.toString().replace('linux', 'linuy'));
      const { code, lines } = await check('--repair');
      expect(code).toBe(1);
      expect(lines.join('\n')).toContain('minirun rm -f user');
      expect(await ok('exec', 'user', 'cat', '/here')).toBe('here\n');
      // Then nobody knows which layers the container needs: nothing is swept.
      fs.rmSync(config);
      expect((await failure('image', 'prune', '-f')).stderr).toContain('is missing. See minirun system check.');
      expect((await check('--repair')).code).toBe(1);
      expect(await ok('exec', 'user', 'cat', '/here')).toBe('here\n');
      fs.writeFileSync(config, text);
      expect((await check()).code).toBe(0);
    });

    test('a damaged config is named, and every command says so in a sentence', async () => {
      const id = await made('torn:1', 'echo >/x');
      fs.writeFileSync(place('configs', `${id.slice(7)}.json`), '{');
      expect((await failure('inspect', 'torn:1')).stderr).toContain('it is damaged. See minirun system check.');
      // A list is not made worse by one of its images.
      expect(await ok('images', '--format', '{{.Repository}}')).toBe('torn\nbusybox\n');
      expect((await check()).lines[0]).toContain('image torn:1: its config');
      expect((await check('--repair')).code).toBe(0);
      expect(await ok('images', '--format', '{{.Repository}}')).toBe('busybox\n');
    });

    test('what nobody put into the index, and what killed processes leave', async () => {
      fs.mkdirSync(place('layers', 'f'.repeat(64)));
      fs.mkdirSync(place('blobs', 'sha256'), { recursive: true });
      fs.writeFileSync(place('blobs', 'sha256', 'e'.repeat(64)), 'foreign');
      fs.mkdirSync(place('.staging-1-1-00000000-0'));
      fs.writeFileSync(place(`.claim-${'d'.repeat(64)}`), JSON.stringify({ pid: 1, start: 1, boot: 'x' }));
      fs.writeFileSync(place('note.txt'), 'mine');
      const { code, lines } = await check();
      expect(code).toBe(1);
      expect(lines.map((line) => line.replace(/: .*/, '')).toSorted()).toEqual(
        [
          `images/.claim-${'d'.repeat(64)}`,
          'images/.staging-1-1-00000000-0',
          `images/blobs/sha256/${'e'.repeat(64)}`,
          `images/layers/${'f'.repeat(64)}`,
          'images/note.txt',
        ].toSorted(),
      );
      // What is not minirun's is not minirun's to delete.
      const repaired = await check('--repair');
      expect(repaired.code).toBe(1);
      expect(repaired.lines.at(-1)).toContain('images/note.txt: minirun did not put it there. Take it away: ');
      fs.rmSync(place('note.txt'));
      expect((await check()).code).toBe(0);
    });

    test('a damaged index is made anew of what is whole', async () => {
      const id = await made('named:1', 'echo here >/here');
      const index = fs.readFileSync(place('index.json'));
      fs.writeFileSync(place('index.json'), index.subarray(0, 30));
      const { code, stderr } = await world.run(['images']);
      expect(code).toBe(0);
      expect(stderr).toMatch(
        /images\/index\.json is cut off; it was set aside as .*made anew of the images that are whole/,
      );
      const [aside = ''] = fs.readdirSync(place()).filter((name) => name.includes('.damaged-'));
      expect((await check()).lines.find((line) => line.includes(aside))).toStartWith(
        `images/${aside}: an index that was damaged. `,
      );
      fs.rmSync(place(aside));
      // Of archives and manifests nobody knows any more whose they are.
      await ok('system', 'reconcile');
      expect((await check()).lines).toEqual(['2 images, 2 layers, 0 archives: no damage']);
      expect(await ok('run', '--rm', ...quiet, id.slice(7, 19), 'cat', '/here')).toBe('here\n');
      await ok('tag', busyboxOf(index), 'busybox');
    });

    const busyboxOf = (index: Buffer) =>
      (JSON.parse(index.toString()) as ReturnType<typeof readIndex>).references['docker.io/library/busybox:latest']
        ?.id ?? '';
  });
});
