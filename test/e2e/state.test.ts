import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { expectSober } from '../support/hostile.ts';
import { missingTool, missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, type Snapshot, type World } from '../support/world.ts';

interface State {
  status: string;
  owner?: object;
  init?: { pid: number };
  endpoints: object[];
  ports?: object[];
}

/** The state directory as a former, a later or a broken minirun, or somebody else, may have left it. */
describe.skipIf(skipOrFail(missingWorld() ?? missingTool('tc', 'dnsmasq')))('the state directory', () => {
  let world: World;
  let before: Snapshot;
  const place = (...parts: string[]) => path.join(world.root, ...parts);
  const idOf = (name: string) => fs.readlinkSync(place('names', name));
  const container = (name: string, file: string) => place('containers', idOf(name), file);
  const read = <T = Record<string, unknown>>(file: string) => JSON.parse(fs.readFileSync(file, 'utf8')) as T;
  const write = (file: string, value: unknown) => fs.writeFileSync(file, JSON.stringify(value));
  const cut = (file: string, part = 0.6) => fs.truncateSync(file, Math.floor(fs.statSync(file).size * part));

  /** Runs a command that has to succeed. @returns what it says on both streams */
  const run = async (...args: string[]) => {
    const result = await world.run(args);
    expectSober(args, result);
    if (result.code !== 0) throw new Error(`${args.join(' ')}: ${result.code} ${result.stderr}`);
    return result;
  };
  const refusal = async (...args: string[]) => {
    const result = await world.run(args);
    expectSober(args, result);
    expect(`${args.join(' ')}: ${result.code === 0}`).toBe(`${args.join(' ')}: false`);
    return result;
  };
  const fetched = async () => (await world.host.run(['wget', '-qO-', '-T2', 'http://203.0.113.2:8080/'])).stdout;
  const asides = (directory: string) => fs.readdirSync(directory).filter((name) => name.includes('.damaged-'));

  beforeAll(async () => {
    world = await createWorld();
    await world.sh('minirun run --rm -p 8080:80 busybox true; minirun system reconcile');
    before = await world.snapshot();
    await world.sh(`
      minirun network create --subnet 10.77.0.0/24 lab
      minirun run -d --name web -p 8080:80 --network lab busybox sh -c 'mkdir /w; echo hello >/w/index.html; busybox httpd -f -p 80 -h /w'
      minirun run -d --name db --network none busybox sleep 1000
      minirun create --name idle -v /data busybox true
      minirun link add web:eth5 db:eth5 --addr 10.5.0.1/24 --peer-addr 10.5.0.2/24
      minirun route add web 10.6.0.0/24 via 10.5.0.2
      minirun route add host 10.8.0.0/24 via 10.77.0.2`);
  }, 40_000);
  afterAll(() => world.destroy());

  describe('of a newer minirun', () => {
    test('is refused by every command, which changes nothing', async () => {
      const marker = read(place('schema.json'));
      const now = await world.snapshot();
      write(place('schema.json'), { ...marker, format: 99, oldest: 99, by: '9.9.9' });
      for (const args of [
        ['ps'],
        ['run', '--rm', 'busybox', 'true'],
        ['rm', '-f', '-a'],
        ['system', 'reconcile'],
        ['images'],
      ]) {
        const { code, stderr } = await refusal(...args);
        expect(code).toBe(125);
        expect(stderr).toMatch(
          /^minirun: cannot use the state directory .*schema\.json says that minirun 9\.9\.9 has written it.*--root DIR\.\n$/,
        );
      }
      await run('version');
      await run('doctor').catch((error: Error) => expect(error.message).toStartWith('doctor: 1'));
      expect(await world.snapshot()).toEqual(now);
      // What an older one does no harm to.
      const tolerant = { ...marker, format: 99 };
      write(place('schema.json'), tolerant);
      await run('ps');
      expect(read(place('schema.json'))).toEqual(tolerant);
      write(place('schema.json'), marker);
    });

    test('in one of its files is refused, the file is named and left as it is', async () => {
      const files = [
        place('networks/lab.json'),
        place('links/web-db.json'),
        place('ports.json'),
        place('host-routes.json'),
        place('images/index.json'),
        place('schema.json'),
        container('web', 'state.json'),
        container('web', 'definition.json'),
        container('web', 'steps.json'),
        container('web', 'routes.json'),
      ];
      for (const file of files) {
        const content = fs.readFileSync(file);
        write(file, { ...read<object>(file), schema: 99 });
        const newer = fs.readFileSync(file, 'utf8');
        for (const args of [
          ['system', 'reconcile'],
          ['rm', '-f', 'web'],
        ]) {
          // Which of them rm reads depends on what it removes.
          if (args[0] === 'rm' && /index|host-routes/.test(file)) continue;
          const { stderr } = await refusal(...args);
          expect(stderr).toContain(`${file}: this state was written by a newer minirun (schema 99`);
        }
        expect(fs.readFileSync(file, 'utf8')).toBe(newer);
        fs.writeFileSync(file, content);
        expect((await run('ps', '--format', '{{.Names}}')).stdout).toBe('db\nweb\n');
      }
      expect(await fetched()).toBe('hello\n');
    }, 30_000);
  });

  test('of an older minirun gets its mark', async () => {
    const marker = read(place('schema.json'));
    fs.rmSync(place('schema.json'));
    await run('ps');
    expect(read(place('schema.json'))).toEqual(marker);
    write(place('schema.json'), { ...marker, format: 1, oldest: 1, by: '0.0.1' });
    await run('ps');
    expect(read(place('schema.json'))).toEqual(marker);
    fs.writeFileSync(place('schema.json'), '');
    expect((await run('ps')).stderr).toContain('schema.json is empty; it was set aside as schema.json.damaged-');
    expect(read(place('schema.json'))).toEqual(marker);
  });

  test('is closed to others, or it is closed now (CVE-2021-41091)', async () => {
    fs.chmodSync(world.root, 0o711);
    expect((await run('ps')).stderr).toMatch(/had mode 0711, .* it has 0700 now/);
    expect(fs.statSync(world.root).mode & 0o777).toBe(0o700);
    expect((await run('ps')).stderr).toBe('');
    fs.chownSync(world.root, 1000, 0);
    expect((await refusal('ps')).stderr).toMatch(/belongs to user 1000, and this is user 0\..*chown 0/);
    fs.chownSync(world.root, 0, 0);

    const open = path.join(world.directory, 'open');
    fs.mkdirSync(open);
    fs.chmodSync(open, 0o777);
    expect((await refusal('--root', `${open}/state`, 'ps')).stderr).toMatch(/everybody may write to .*open/);
    expect(fs.readdirSync(open)).toEqual([]);
    fs.chmodSync(open, 0o1777);
    await run('--root', `${open}/state`, 'ps');
    // Its images may be on another disk, but no file is a directory.
    fs.rmSync(`${open}/state/images`, { recursive: true });
    fs.mkdirSync(`${open}/images`);
    fs.symlinkSync(`${open}/images`, `${open}/state/images`);
    await run('--root', `${open}/state`, 'images');
    fs.rmdirSync(`${open}/state/networks`);
    fs.writeFileSync(`${open}/state/networks`, '');
    expect((await refusal('--root', `${open}/state`, 'ps')).stderr).toMatch(
      /state\/networks is no directory\. Move it away/,
    );
    fs.rmSync(open, { recursive: true });
  });

  describe('with a damaged file', () => {
    test('that says where a running container is in its life: the container goes on', async () => {
      const file = container('web', 'state.json');
      const sound = read<State>(file);
      const damages: ((file: string) => void)[] = [
        (each) => cut(each),
        (each) => fs.writeFileSync(each, ''),
        (each) => {
          fs.rmSync(each);
          fs.symlinkSync('/etc/passwd', each);
        },
        (each) => {
          fs.rmSync(each);
          execFileSync('mkfifo', [each]);
        },
        (each) => fs.rmSync(each),
      ];
      for (const damage of damages) {
        damage(file);
        const { stdout, stderr } = await run('ps', '-a', '--format', '{{.Names}} {{.State}} {{.Ports}}');
        expect(stdout).toBe('idle created \ndb running \nweb running 0.0.0.0:8080->80/tcp\n');
        expect(stderr).toMatch(
          /^minirun: warning: containers\/[0-9a-f]{64}\/state\.json is .*Container web goes on running.*\n$/,
        );
        const { status, owner, init, endpoints, ports } = read<State>(file);
        expect({ status, owner, init, endpoints, ports }).toEqual({
          status: 'running',
          owner: sound.owner,
          init: sound.init,
          endpoints: sound.endpoints,
          ports: sound.ports,
        });
        expect((await run('exec', 'web', 'echo', 'there')).stdout).toBe('there\n');
      }
      expect(asides(path.dirname(file))).toHaveLength(4);
      expect(await fetched()).toBe('hello\n');
    }, 20_000);

    test('that says what is in a network: it is put together from its containers', async () => {
      const file = place('networks/lab.json');
      const sound = read(file);
      for (const content of ['', '{"schema": 2, "name": "lab"}', 'null']) {
        fs.writeFileSync(file, content);
        const { stderr } = await run('ps');
        expect(stderr).toContain('Network lab was put together from its containers and from the kernel');
        const { subnets, leases, bridge, up, internal, isolate } = read(file);
        expect({ subnets, leases, bridge, up, internal, isolate }).toEqual({
          subnets: sound.subnets,
          leases: sound.leases,
          bridge: sound.bridge,
          up: true,
          internal: false,
          isolate: true,
        });
      }
      // Without a container in it, its name server says which bridge is its.
      await run('network', 'create', '--subnet', '10.78.0.0/24', 'empty');
      const { bridge } = read(place('networks/empty.json'));
      fs.writeFileSync(place('networks/empty.json'), '');
      await run('ps');
      expect(read(place('networks/empty.json'))).toMatchObject({
        bridge,
        subnets: [{ subnet: '10.78.0.0/24', gateway: '10.78.0.1' }],
      });
      await run('network', 'rm', 'empty');
      expect((await world.host.run(['ip', 'link', 'show', String(bridge)])).code).toBe(1);
      // Somebody else's file, and one whose name is none, are not minirun's.
      fs.writeFileSync(place('networks/..json'), 'x');
      fs.writeFileSync(place('networks/notes.txt'), 'x');
      write(place('networks/other.json'), sound);
      expect((await run('network', 'ls', '-q', '--filter', 'driver=bridge')).stderr).toContain(
        'other.json is that of another network',
      );
      expect(fs.existsSync(place('networks/..json')) && fs.existsSync(place('networks/notes.txt'))).toBe(true);
      for (const name of ['..json', 'notes.txt', 'other.json']) fs.rmSync(place('networks', name), { force: true });
      await run('network', 'rm', 'other').catch(() => {});
      expect((await run('run', '--rm', '--network', 'lab', 'busybox', 'hostname', '-i')).stdout).toMatch(
        /^10\.77\.0\./,
      );
    }, 20_000);

    test('ports.json: nobody gets a port that a container has', async () => {
      fs.writeFileSync(place('ports.json'), '{"schema":1,"boot":7}');
      const { stderr } = await refusal('run', '--rm', '-p', '8080:81', 'busybox', 'true');
      expect(stderr).toContain('container web has published it');
      expect(stderr).toContain('ports.json is not of the right form (boot: no text); it was set aside');
      expect(await fetched()).toBe('hello\n');
    });

    test('a link, routes of the host, a change: other things go on', async () => {
      write(place('changing.json'), { by: 'nobody', undo: 7 });
      cut(place('host-routes.json'), 0.1);
      cut(container('web', 'routes.json'), 0.2);
      const { stderr } = await run('ps');
      expect(stderr).toMatch(/changing\.json is .*cut short/);
      expect(stderr).toMatch(/host-routes\.json is cut off/);
      expect(fs.existsSync(place('changing.json'))).toBe(false);
      expect((await run('link', 'ls', '-q')).stdout).toBe('web-db\n');
      const link = read(place('links/web-db.json'));
      write(place('links/web-db.json'), { ...link, ends: [] });
      expect((await run('ps')).stderr).toContain('Link web-db is forgotten');
      expect((await run('system', 'reconcile')).stderr).toMatch(/routes\.json is cut off.*minirun route ls web/);
      expect(await fetched()).toBe('hello\n');
    });

    test('the index of images: it is made anew, with its names as far as they can be told', async () => {
      const sound = read<{ references: object; images: object }>(place('images/index.json'));
      for (const content of ['', JSON.stringify(sound).slice(0, 200), JSON.stringify({ ...sound, images: [] })]) {
        fs.writeFileSync(place('images/index.json'), content);
        expect((await run('images', '-q')).stdout).toMatch(/^[0-9a-f]{12}\n$/);
        const { references, images } = read<{ references: object; images: object }>(place('images/index.json'));
        expect(Object.keys(images)).toEqual(Object.keys(sound.images));
        expect(references).toEqual(sound.references);
      }
      await run('run', '--rm', '--pull', 'never', 'busybox', 'true');
      for (const name of asides(place('images'))) fs.rmSync(place('images', name));
      expect((await run('system', 'check', '--quick')).stdout).toContain('no damage');
    }, 20_000);

    test('names: what lies in the place of one is no name', async () => {
      fs.writeFileSync(place('names/taken'), 'x');
      fs.symlinkSync('../../../etc', place('names/outside'));
      for (const name of ['taken', 'outside']) {
        expect((await refusal('rm', name)).stderr).toContain(`no container "${name}"`);
        await run('run', '--rm', '--name', name, 'busybox', 'true');
        expect(fs.existsSync(place('names', name))).toBe(false);
      }
      expect(asides(place('names'))).toHaveLength(2);
      for (const name of asides(place('names'))) fs.rmSync(place('names', name));
    });

    test('the definition: the container can be looked at and removed with all that it had, not started', async () => {
      const volumes = fs.readdirSync(place('volumes'));
      expect(volumes).toHaveLength(1);
      cut(container('idle', 'definition.json'), 0.3);
      fs.writeFileSync(container('web', 'definition.json'), 'garbage');
      const { stdout, stderr } = await run('ps', '-a', '--format', '{{.Names}} {{.Status}}');
      expect(stdout).toMatch(/^idle Created \(damaged\)$/m);
      expect(stdout).toMatch(/^web Up .* \(damaged\)$/m);
      expect(stderr.match(/can be looked at and removed, but not started/g)).toHaveLength(2);
      expect((await refusal('start', 'idle')).stderr).toMatch(
        /cannot start container "idle": its definition\.json was damaged.*minirun rm -f idle/,
      );
      await run('inspect', 'web', 'idle');
      await run('rm', '-v', 'idle');
      expect(fs.readdirSync(place('volumes'))).toEqual([]);
      expect(await fetched()).toBe('hello\n');
    });

    test('the steps to be undone: they are planned anew, and nothing stays', async () => {
      await run('run', '-d', '--name', 'twin', '--network', 'lab', '-p', '8081:80', 'busybox', 'sleep', '1000');
      fs.rmSync(container('twin', 'steps.json'));
      fs.rmSync(container('web', 'steps.json'));
      fs.mkdirSync(container('web', 'steps.json'));
    });
  });

  test('nothing is left of any of this', async () => {
    await world.sh(`
      minirun rm -f -a -v; minirun network rm lab; ip route del 10.8.0.0/24 2>/dev/null || true
      minirun system reconcile; find $MINIRUN_ROOT -name '*.damaged-*' -prune -exec rm -rf {} +`);
    await expectNoLeak(before, world);
  });
});
