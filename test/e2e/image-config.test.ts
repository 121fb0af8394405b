import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { archiveOf, tarOf } from '../support/oci-layout.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

/** What an image says about the containers that are made of it, and what becomes of that. */
describe.skipIf(skipOrFail(missingWorld()))('image config', () => {
  let world: World;
  let before: Snapshot;
  /** A root filesystem with busybox, and a directory `data` for volumes. */
  let rootfs: string;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    rootfs = path.join(world.directory, 'rootfs.tar');
    await world.sh(`
      cp -a "$(ls -d ${world.root}/images/layers/* | head -n 1)" tree; cd tree
      mkdir -p data/sub other; chown 1000:1001 data; chmod 2750 data; echo file >data/file; chmod 640 data/file
      ln data/file data/sub/linked; ln -s /data/file data/link; mkfifo data/fifo; mknod data/disk b 259 0; chmod 666 data/disk
      setfattr -n user.note -v kept data/file; touch -d @1000000000 data/sub data/file
      ln -s data by-link; ln -s ../../../../../../../../../etc outside
      echo user:x:1000:1001:User:/home/user:/bin/sh >>etc/passwd; echo crew:x:1001: >>etc/group
      tar --xattrs -cf ${rootfs} .; cd ..; rm -r tree`);
    before = await world.snapshot();
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-v', '-a']);
    expect(volumes()).toEqual([]);
    await expectNoLeak(before, world);
    await world.destroy();
  });

  let serial = 0;
  /** An image with these instructions in its config. @returns its name */
  const imageWith = async (...changes: readonly string[]): Promise<string> => {
    const name = `config-${serial++}`;
    const result = await world.run(['import', ...changes.flatMap((change) => ['--change', change]), rootfs, name]);
    expect({ code: result.code, stderr: result.stderr }).toEqual({ code: 0, stderr: '' });
    return name;
  };
  const run = async (...args: readonly string[]): Promise<Result> =>
    world.run(['run', '--rm', '--network', 'none', ...args]);
  /** What it prints; fails unless it exits with 0 and says nothing on stderr. */
  const outputOf = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  };
  const inspect = async (name: string, format: string): Promise<unknown> =>
    JSON.parse((await world.run(['inspect', '-f', `{{json ${format}}}`, name])).stdout);
  const volumes = () => fs.readdirSync(path.join(world.root, 'volumes'));
  const remove = async (...args: readonly string[]) => {
    const { code, stderr } = await world.run(['rm', '-f', ...args]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  };

  describe('the command', () => {
    let image: string;
    beforeAll(async () => {
      image = await imageWith('ENTRYPOINT ["echo", "entry"]', 'CMD ["cmd"]');
    });
    test('is the entrypoint with the arguments of the image or the user', async () => {
      expect(await outputOf(image)).toBe('entry cmd\n');
      expect(await outputOf(image, 'mine')).toBe('entry mine\n');
    });
    test('--entrypoint takes the place of both', async () => {
      expect(await outputOf('--entrypoint', 'echo', image)).toBe('\n');
      expect(await outputOf('--entrypoint', 'echo', image, 'mine')).toBe('mine\n');
      expect(await outputOf('--entrypoint', '', image, 'echo', 'bare')).toBe('bare\n');
      expect(await run('--entrypoint', '', image)).toMatchObject({
        code: 125,
        stderr: expect.stringContaining('no command to run') as string,
      });
    });
    test("a line is for the image's shell", async () => {
      const shell = await imageWith('SHELL ["/bin/busybox", "sh", "-c"]', 'CMD echo $0 of $((40 + 2))');
      expect(await outputOf(shell)).toMatch(/ of 42\n$/);
    });
  });

  test('variables: those of the user go before, and a name alone that the caller has not takes one away', async () => {
    const image = await imageWith('ENV KEPT=1 CHANGED=1 GONE=1 PATH=/bin:/usr/bin', 'CMD ["env"]');
    const lines = (await outputOf('-e', 'CHANGED=2', '-e', 'GONE', '-e', 'LANG', image)).split('\n');
    expect(lines).toContain('KEPT=1');
    expect(lines).toContain('CHANGED=2');
    expect(lines).toContain('LANG=C.UTF-8');
    expect(lines).toContain('PATH=/bin:/usr/bin');
    expect(lines.some((line) => line.startsWith('GONE'))).toBe(false);
  });

  test('labels are merged, health checks and triggers are kept', async () => {
    const image = await imageWith(
      'LABEL a=1 b=1',
      'HEALTHCHECK --interval=1m30s --retries=2 CMD wget -q http://localhost/ || exit 1',
      'ONBUILD RUN make',
      'CMD ["true"]',
    );
    await world.run(['create', '--name', 'labelled', '-l', 'b=2', '-l', 'c', image]);
    expect(await inspect('labelled', '.Config.Labels')).toEqual({ a: '1', b: '2', c: '' });
    expect(await inspect('labelled', '.Config.Healthcheck')).toEqual({
      Test: ['CMD-SHELL', 'wget -q http://localhost/ || exit 1'],
      Interval: 90e9,
      Retries: 2,
    });
    await remove('labelled');
  });

  test('the stop signal', async () => {
    for (const [change, name] of [
      ['STOPSIGNAL INT', 'SIGINT'],
      ['STOPSIGNAL 10', 'SIGUSR1'],
      ['STOPSIGNAL SIGRTMIN+3', 'SIGRTMIN+3'],
    ] as const) {
      await world.run(['create', '--name', 'stopped', await imageWith(change), 'true']);
      expect(await inspect('stopped', '.Config.StopSignal')).toBe(name);
      await remove('stopped');
    }
    const broken = await imageWith('STOPSIGNAL SIGNONE');
    const refused = await run(broken, 'true');
    expect(refused).toMatchObject({ code: 125, stdout: '' });
    expect(refused.stderr).toMatch(/stop signal "SIGNONE" of image "config-\d+": .* --stop-signal/);
    expect((await run('--stop-signal', 'TERM', broken, 'true')).code).toBe(0);
  });

  test('the user: names, ids, and --user instead', async () => {
    const image = await imageWith('USER user', 'CMD ["id"]');
    expect(await outputOf(image)).toStartWith('uid=1000(user) gid=1001(crew)');
    expect(await outputOf('-u', '5:6', image)).toStartWith('uid=5 gid=6');
    expect(await outputOf('-u', '', image)).toStartWith('uid=1000');
    expect(await outputOf(await imageWith('USER 7:crew'), 'id')).toStartWith('uid=7 gid=1001(crew)');
    expect(await run(await imageWith('USER nobody-here'), 'id')).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('unknown user "nobody-here"') as string,
    });
  });

  describe('the working directory', () => {
    const look = ['sh', '-c', 'pwd; stat -c "%u %g %a" . ..'];
    test("is made where it is missing, as root's, also for an ordinary user", async () => {
      const image = await imageWith('WORKDIR /srv/app/deep', 'USER user');
      expect(await outputOf(image, ...look)).toBe('/srv/app/deep\n0 0 755\n0 0 755\n');
    });
    test('also on a read-only root, and whatever the umask of the caller', async () => {
      const image = await imageWith('WORKDIR /new');
      expect(await outputOf('--read-only', image, ...look)).toStartWith('/new\n0 0 755\n');
      expect(await world.sh(`umask 077; minirun run --rm --network none ${image} stat -c %a .`)).toBe('755\n');
    });
    test('a link in the image does not lead out of it', async () => {
      const image = await imageWith('WORKDIR /outside/minirun-escape');
      expect(await outputOf(image, 'pwd', '-P')).toBe('/etc/minirun-escape\n');
      expect(fs.existsSync('/etc/minirun-escape')).toBe(false);
      expect(fs.existsSync(world.host.path('/etc/minirun-escape'))).toBe(false);
    });
    test('a file there is an error', async () => {
      expect(await run('-w', '/etc/passwd', await imageWith(), 'true')).toMatchObject({
        code: 125,
        stderr: expect.stringContaining('cannot enter the working directory /etc/passwd') as string,
      });
    });
  });

  test('ports: shown while it runs', async () => {
    const image = await imageWith('EXPOSE 443 8000-8002 53/udp', 'CMD ["sleep", "1000"]');
    await world.run([
      'run',
      '-d',
      '--name',
      'ports',
      '--network',
      'none',
      '--expose',
      '80',
      '--expose',
      '8003-8004',
      image,
    ]);
    const ps = (...flags: string[]) => world.run(['ps', ...flags, '--format', '{{.Ports}}', '-f', 'name=ports']);
    expect((await ps()).stdout).toBe('80/tcp, 443/tcp, 53/udp, 8000-8004/tcp\n');
    expect(await inspect('ports', '.NetworkSettings.Ports')).toMatchObject({ '80/tcp': null, '53/udp': null });
    await world.run(['stop', '-t', '0', 'ports']);
    expect((await ps('-a')).stdout).toBe('\n');
    expect(Object.keys((await inspect('ports', '.Config.ExposedPorts')) as object)).toHaveLength(8);
    await remove('ports');
    for (const text of ['http', '0', '9-8', '80/icmp']) {
      expect(await run('--expose', text, image)).toMatchObject({
        code: 125,
        stderr: expect.stringContaining(`invalid --expose "${text}"`) as string,
      });
    }
  });

  describe('anonymous volumes', () => {
    let image: string;
    beforeAll(async () => {
      image = await imageWith('VOLUME /data /fresh', 'CMD ["sleep", "1000"]');
    });

    test("begin as the image has the directory: files, links, owners, modes, attributes, and the directory's own", async () => {
      const list = 'cd /data; find . | sort; stat -c "%n %u %g %a %Y" . file sub link; stat -c %h file; cat sub/linked';
      const plain = await imageWith();
      const without = await outputOf(plain, 'sh', '-c', list);
      expect(without).toContain('. 1000 1001 2750');
      expect(await outputOf(image, 'sh', '-c', list)).toBe(without);
      expect(await outputOf('-v', '/data', plain, 'sh', '-c', list)).toBe(without);
      expect(await outputOf('--mount', 'type=volume,dst=/data', plain, 'sh', '-c', list)).toBe(without);
      expect(await outputOf('--mount', 'dst=/data,volume-nocopy', plain, 'ls', '-A', '/data')).toBe('');
      expect(await outputOf('-v', '/by-link', plain, 'cat', '/data/sub/linked')).toBe('file\n');
      expect(volumes()).toEqual([]);
    });

    test('an image cannot get at the disks by a device in one', async () => {
      const { code, stderr } = await run(image, 'head', '-c', '1', '/data/disk');
      expect(code).not.toBe(0);
      expect(stderr).toContain('Permission denied');
    });

    test('outlive a stop and a start, a plain rm, and nothing else', async () => {
      await world.run(['run', '-d', '--name', 'store', '--network', 'none', image]);
      const mounts = (await inspect('store', '.Mounts')) as {
        Type: string;
        Name: string;
        Source: string;
        Destination: string;
      }[];
      expect(mounts.map(({ Type, Destination }) => `${Type} ${Destination}`)).toEqual([
        'volume /data',
        'volume /fresh',
      ]);
      expect(volumes().sort()).toEqual(mounts.map(({ Name }) => Name).sort());
      expect(await inspect('store', '.Config.Volumes')).toEqual({ '/data': {}, '/fresh': {} });
      await world.run(['exec', 'store', 'sh', '-c', 'echo new >/data/new; rm /data/file; echo x >/root/plain']);
      await world.run(['restart', '-t', '0', 'store']);
      expect((await world.run(['exec', 'store', 'ls', '/data'])).stdout).toBe('disk\nfifo\nlink\nnew\nsub\n');
      await world.run(['stop', '-t', '0', 'store']);
      expect(fs.readFileSync(path.join(mounts[0]?.Source ?? '', 'new'), 'utf8')).toBe('new\n');
      const upper = path.join(world.root, 'containers', String(await inspect('store', '.Id')), 'upper');
      expect(fs.readdirSync(upper)).toEqual(expect.arrayContaining(['root']) as string[]);
      expect(fs.existsSync(path.join(upper, 'data'))).toBe(false);
      await remove('store');
      expect(volumes()).toHaveLength(2);
      await world.sh(`rm -r ${world.root}/volumes/*`);

      for (const removal of [['-v'], ['-v', '-a']]) {
        await world.run(['create', '--name', 'store', image]);
        expect(volumes()).toHaveLength(2);
        await remove(...removal, ...(removal.length > 1 ? [] : ['store']));
        expect(volumes()).toEqual([]);
      }
      await world.run(['run', '-d', '--rm', '--name', 'store', '--network', 'none', image]);
      expect(volumes()).toHaveLength(2);
      await remove('store');
      expect(volumes()).toEqual([]);
    });

    test('what the user mounts goes before, and what lies inside it comes after', async () => {
      await world.sh('mkdir -p mine; echo mine >mine/file');
      expect(await outputOf('-v', `${world.directory}/mine:/data`, image, 'ls', '/data')).toBe('file\n');
      expect(await outputOf('--tmpfs', '/data', image, 'ls', '/data')).toBe('');
      expect(
        await outputOf(
          '-v',
          '/data/sub',
          '-v',
          '/data',
          await imageWith(),
          'sh',
          '-c',
          'ls /data/sub; grep -c " /data" /proc/self/mountinfo',
        ),
      ).toBe('linked\n2\n');
      expect(await outputOf('-v', '/etc', image, 'cat', '/etc/hostname')).toMatch(/^[0-9a-f]{12}\n$/);
      expect(
        await outputOf('-h', 'name', '--mount', 'dst=/data,readonly', image, 'sh', '-c', 'touch /data/x 2>&1 || :'),
      ).toContain('Read-only');
    });

    test('are refused where they cannot be, with nothing left behind', async () => {
      const start = await world.snapshot();
      const refusals: [string[], RegExp][] = [
        [['-v', '/data/file', image], /cannot make a volume at \/data\/file: the image has a file there/],
        [[await imageWith('VOLUME /')], /declares its whole root as a volume/],
        [['-v', 'data', image], /is not an absolute path/],
        [['-v', 'n:/data', image], /"n" is no name of a volume/],
      ];
      for (const [args, message] of refusals) {
        const { code, stdout, stderr } = await run(...args);
        expect({ code, stdout }).toEqual({ code: 125, stdout: '' });
        expect(stderr).toMatch(message);
      }
      expect(volumes()).toEqual([]);
      await expectNoLeak(start, world);
    });

    test('are not left behind by a create, run or rm that is cut short at any point', async () => {
      const start = await world.snapshot();
      const attempts: [string[], string[], 'fail'?][] = [
        [[], ['create', '--name', 'cut', image], 'fail'],
        [[], ['create', '--name', 'cut', image]],
        [[], ['run', '--rm', '--name', 'cut', '--network', 'none', image, 'true']],
        [
          ['create', '--name', 'cut', image],
          ['rm', '-v', 'cut'],
        ],
      ];
      for (const [first, command, fault = 'kill'] of attempts) {
        for (let point = 1, isCut = true; isCut; point++) {
          if (first.length > 0) expect((await world.run(first)).code).toBe(0);
          const result = await world.run(command, { env: { MINIRUN_FAULT: `${fault}:${point}` } });
          isCut = result.code !== 0;
          if (fault === 'kill') expect((await world.run(['system', 'reconcile'])).stderr).toBe('');
          // A container that was written down whole, or one that nobody had begun to remove, is still there with all.
          const containers = fs.readdirSync(path.join(world.root, 'containers'));
          expect(volumes(), `${command[0]} cut (${fault}) at point ${point}`).toHaveLength(2 * containers.length);
          if (containers.length > 0) await remove('-v', 'cut');
          await expectNoLeak(start, world);
        }
      }
    }, 120_000);

    test('the script of --explain has them, and takes them back', async () => {
      const start = await world.snapshot();
      const flags = ['run', '--rm', '--network', 'none', '--explain'];
      const script = await world.run([...flags, image, 'sh', '-c', 'cat /data/file; ls /fresh']);
      expect(await world.sh('cat >script; sh script add; sh script delete; rm script', { input: script.stdout })).toBe(
        'file\n',
      );
      expect(volumes()).toEqual([]);
      await expectNoLeak(start, world);
    });
  });

  test('an image that is removed while a container is made of it: one of the two sees the other', async () => {
    const start = await world.snapshot();
    /** Has `create` stop at one of its fault points, and `rmi` run there. */
    const meanwhile = async (image: string, point: number) => {
      const creation = await world.spawn(['create', '--name', 'raced', image], {
        env: { MINIRUN_FAULT: `stop:${point}` },
      });
      await creation.stopped();
      const removal = await world.run(['rmi', image]);
      return { created: await creation.resume(), removal };
    };
    // Looked up, but not written down yet.
    const early = await meanwhile(await imageWith('CMD ["true"]'), 1);
    expect(early.removal.code).toBe(0);
    expect(early.created).toMatchObject({
      code: 125,
      stdout: '',
      stderr: expect.stringContaining('it has just been removed by another process') as string,
    });
    await expectNoLeak(start, world);
    const image = await imageWith('CMD ["true"]');
    const late = await meanwhile(image, 2);
    expect(late.removal.stderr).toContain('raced uses its image');
    expect(late.created.code).toBe(0);
    await remove('raced');
    await expectNoLeak(start, world);
  });

  test('130 layers', async () => {
    const base = fs.readFileSync(rootfs);
    const layers = Array.from({ length: 129 }, (_, index) =>
      tarOf([
        { path: 'many/', type: 'Directory' },
        { path: `many/${index}`, content: `${index}` },
        { path: 'many/top', content: `${index}\n` },
      ]),
    );
    const archive = archiveOf([
      { layers: [base, ...layers], config: { Cmd: ['sh'] }, name: 'docker.io/library/many:latest' },
    ]);
    const loaded = await world.run(['load'], { input: archive, timeout: 60_000 });
    expect({ code: loaded.code, stderr: loaded.stderr }).toMatchObject({ code: 0 });
    const look = 'cat /many/top; ls /many | wc -l; echo new >/many/new; grep -c "/layers" /proc/self/mountinfo || :';
    expect(await outputOf('many', 'sh', '-c', look)).toBe('128\n130\n0\n');
    expect(await outputOf('-v', '/many', 'many', 'sh', '-c', look)).toStartWith('128\n130\n');
    const script = await world.run(['run', '--explain', '--network', 'none', 'many', 'sh', '-c', look]);
    expect(await world.sh('cat >script; sh script add; sh script delete; rm script', { input: script.stdout })).toBe(
      '128\n130\n0\n',
    );
    await world.run(['create', '--name', 'many', 'many']);
    await world.sh('minirun cp many:/many/top top; [ "$(cat top)" = 128 ]; minirun cp top many:/many/new');
    expect((await world.run(['start', 'many'])).code).toBe(0);
    await remove('many');
  });
});
