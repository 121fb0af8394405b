import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, type Result, type World } from '../support/world.ts';

// CVE-2018-15664: `docker cp` looked at a path of a running container, and then used it on the host.
describe.skipIf(skipOrFail(missingWorld()))('cp and a hostile container', () => {
  let world: World;
  /** A directory of the host that no container may read or write. */
  let victim: string;
  /** Where copies go. */
  let target: string;

  beforeAll(async () => {
    world = await createWorld();
    victim = path.join(world.directory, 'victim');
    target = path.join(world.directory, 'target');
    for (const directory of [victim, target]) fs.mkdirSync(directory);
    fs.writeFileSync(path.join(victim, 'file'), 'the host');
    fs.writeFileSync(path.join(world.directory, 'evil'), 'evil');
  });

  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  function expectUntouched(): void {
    expect(fs.readdirSync(victim)).toEqual(['file']);
    expect(fs.readFileSync(path.join(victim, 'file'), 'utf8')).toBe('the host');
  }

  /** Starts a container in the background and waits until its script has said `ready`. */
  async function start(name: string, script: string): Promise<void> {
    const result = await world.run(['run', '-d', '--name', name, 'busybox', 'sh', '-c', script]);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    for (let tries = 0; tries < 200; tries++) {
      if ((await world.run(['exec', name, 'test', '-e', '/ready'])).code === 0) return;
    }
    throw new Error(`container ${name} did not get ready`);
  }

  const cp = async (...args: string[]): Promise<Result> => world.run(['cp', '-q', ...args], { cwd: world.directory });

  test('a symbolic link at the destination is followed inside the root', async () => {
    await start('links', `ln -s ${victim} /out; mkdir -p ${victim}; ln -s / /root/up; touch /ready; exec sleep 1000`);
    expect(await cp('evil', 'links:/out')).toMatchObject({ code: 0, stderr: '' });
    expect(await cp('evil', 'links:/out/file')).toMatchObject({ code: 0 });
    expect(await cp('evil', `links:/root/up/../../../../..${victim}/again`)).toMatchObject({ code: 0 });
    expectUntouched();
    const inside = await world.run(['exec', 'links', 'ls', victim]);
    expect(inside.stdout).toBe('again\nevil\nfile\n');
  });

  test('a symbolic link at the source is followed inside the root', async () => {
    await world.run(['exec', 'links', 'sh', '-c', 'ln -s /etc/shadow-of-host /secret; ln -s /etc /root/etc']);
    expect(await cp('-L', 'links:/secret', target)).toMatchObject({
      code: 1,
      stderr: 'minirun: no such file in the container: /secret\n',
    });
    const passwd = await cp('-L', 'links:/root/etc/passwd', path.join(target, 'passwd'));
    expect(passwd).toMatchObject({ code: 0, stderr: '' });
    expect(fs.readFileSync(path.join(target, 'passwd'), 'utf8')).not.toBe(fs.readFileSync('/etc/passwd', 'utf8'));
  });

  test('the same in a container at rest', async () => {
    await world.run(['stop', '-t', '0', 'links']);
    expect(await cp('evil', 'links:/out/rest')).toMatchObject({ code: 0, stderr: '' });
    expect(await cp('links:/out/rest', path.join(target, 'rest'))).toMatchObject({ code: 0, stderr: '' });
    expect(fs.readFileSync(path.join(target, 'rest'), 'utf8')).toBe('evil');
    expect(await cp('-L', 'links:/secret', target)).toMatchObject({ code: 1 });
    expectUntouched();
    expect(fs.readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(world.root);
  });

  test('links are copied as they are, and nothing is written through them', async () => {
    await start('tree', `mkdir /tree; ln -s ${victim} /tree/a; echo x >/tree/b; touch /ready; exec sleep 1000`);
    expect(await cp('tree:/tree', target)).toMatchObject({ code: 0, stderr: '' });
    expect(fs.readlinkSync(path.join(target, 'tree/a'))).toBe(victim);
    // Now the link is a directory in the container: the copy must not go where the link of the first copy leads.
    await world.run(['exec', 'tree', 'sh', '-c', 'rm /tree/a; mkdir /tree/a; echo evil >/tree/a/file']);
    const second = await cp('tree:/tree', target);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('a file is there, and a directory cannot replace it');
    expectUntouched();
  });

  test('no devices and no setuid programs come out, unless asked for', async () => {
    const rootfs = path.join(world.directory, 'rootfs');
    await world.sh(
      `mkdir -p ${rootfs}/bin; mknod ${rootfs}/disk b 7 0; cp ${process.execPath} ${rootfs}/bin/su; chmod 4755 ${rootfs}/bin/su`,
    );
    expect(await world.run(['create', '--name', 'bits', '--rootfs', rootfs, '/bin/su'])).toMatchObject({ code: 0 });
    const device = await cp('bits:/disk', target);
    expect(device).toMatchObject({ code: 1 });
    expect(device.stderr).toContain('it is a device');
    expect(await cp('bits:/bin/su', target)).toMatchObject({ code: 0, stderr: '' });
    expect(fs.statSync(path.join(target, 'su')).mode & 0o7777).toBe(0o755);
    expect(await cp('-a', 'bits:/bin/su', path.join(target, 'su2'))).toMatchObject({ code: 0, stderr: '' });
    expect(fs.statSync(path.join(target, 'su2')).mode & 0o7777).toBe(0o4755);
  });

  test('users’ attributes are kept; capabilities of programs come out only with -a, and other attributes not at all', async () => {
    const rootfs = path.join(world.directory, 'rootfs-attributes');
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, permitted: capabilities(7).
    const capability = '0x0100000200200000000000000000000000000000';
    await world.sh(`mkdir -p ${rootfs}/bin; cd ${rootfs}/bin; echo x >ping; setfattr -n user.note -v kept ping
      setfattr -n security.capability -v ${capability} ping; setfattr -n trusted.secret -v x ping`);
    await world.run(['create', '--name', 'attributes', '--rootfs', rootfs, '/bin/ping']);
    const attributesOf = async (file: string) =>
      world.sh(`cd ${path.dirname(file)}; getfattr -d -m - ${path.basename(file)}`);
    for (const [options, kept] of [
      [[], ['user.note="kept"']],
      [['-a'], ['security.capability', 'user.note="kept"']],
    ] as const) {
      const file = path.join(target, `ping${options.join('')}`);
      expect(await cp(...options, 'attributes:/bin/ping', file)).toMatchObject({ code: 0, stderr: '' });
      const shown = await attributesOf(file);
      for (const each of kept) expect(shown).toContain(each);
      expect(shown).not.toContain('trusted');
      expect(shown.includes('security.capability')).toBe(kept.length === 2);
    }
    // Into a container they stay: what has them there is no program of the host.
    expect(await cp(path.join(target, 'ping-a'), 'attributes:/bin/again')).toMatchObject({ code: 0, stderr: '' });
    expect(await attributesOf(path.join(rootfs, 'bin/again'))).toContain('security.capability');
  });

  // CVE-2019-14271: `docker cp` loaded a library for user names from the root that it had entered.
  test('nothing is opened in the container but what is copied', async () => {
    // Whoever opens a FIFO to read it waits for a writer, and there is none.
    const libraries = ['ld-linux-x86-64.so.2', 'libc.so.6', 'libnss_files.so.2', 'libz.so.1', 'libgcc_s.so.1'];
    const files = [
      ...['passwd', 'group', 'nsswitch.conf', 'localtime', 'ld.so.cache', 'ld.so.preload', 'host.conf'].map(
        (name) => `/etc/${name}`,
      ),
      ...['/lib', '/lib64', '/usr/lib', '/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu'].flatMap((directory) =>
        libraries.map((name) => `${directory}/${name}`),
      ),
      ...['tar', 'gzip', 'zstd', 'cp', 'sh'].map((name) => `/usr/bin/${name}`),
    ];
    const make = files.map((file) => `mkdir -p ${path.dirname(file)}; rm -f ${file}; mkfifo ${file}`).join('; ');
    await start('trap', `mkdir /plain; echo inside >/plain/file; ${make}; touch /ready; exec sleep 1000`);
    expect(await cp('trap:/plain', path.join(target, 'plain'))).toMatchObject({ code: 0, stderr: '' });
    expect(await cp('evil', 'trap:/plain/in')).toMatchObject({ code: 0, stderr: '' });
    const archive = await world.sh(`cd ${world.directory}; tar -cz evil | base64`);
    const input = Buffer.from(archive, 'base64');
    expect(await world.run(['cp', '-q', '-', 'trap:/plain'], { input })).toMatchObject({ code: 0, stderr: '' });
    expect((await world.run(['exec', 'trap', 'ls', '/plain'])).stdout).toBe('evil\nfile\nin\n');
    await world.run(['stop', '-t', '0', 'trap']);
    expect(await cp('trap:/plain/in', path.join(target, 'rest2'))).toMatchObject({ code: 0, stderr: '' });
  }, 30_000);

  test('a tar archive cannot lead out of its directory', async () => {
    const tar = path.join(world.directory, 'evil.tar');
    await world.sh(`cd ${world.directory}; tar -c -P -f ${tar} --transform='s,^evil$,../../..${victim}/evil,' evil`);
    const result = await world.run(['cp', '-q', '-', 'tree:/tree'], { input: fs.readFileSync(tar) });
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expectUntouched();
    expect((await world.run(['exec', 'tree', 'cat', `/tree${victim}/evil`])).stdout).toBe('evil');
  });

  test('a directory that is swapped for a link all the time', async () => {
    const swap = `mv /d /e; ln -s ${victim} /d; rm /d; mv /e /d`;
    // The link leads somewhere in the container too, so that copies succeed whatever they meet.
    await start(
      'race',
      `mkdir -p /d ${victim}; echo inside >/d/file; echo inside >${victim}/file; touch /ready; while :; do ${swap}; done`,
    );
    const tree = path.join(world.directory, 'many');
    fs.mkdirSync(tree);
    for (let index = 0; index < 200; index++) fs.writeFileSync(path.join(tree, `f${index}`), 'evil');
    // A folder of its own: a link that an earlier test has copied must not be read through.
    const race = path.join(world.directory, 'race');
    fs.mkdirSync(race);
    let copied = 0;
    let read = 0;
    for (let round = 0; round < 15; round++) {
      const results = await Promise.all([
        cp('evil', 'race:/d/evil'),
        cp('evil', 'race:/d/file'),
        cp('many/.', 'race:/d'),
        cp('race:/d/file', path.join(race, `file${round}`)),
        cp('race:/d/', path.join(race, `d${round}`)),
      ]);
      copied += results.filter(({ code }) => code === 0).length;
      // Now and then there is no /d, or it has just become something else; that is the container's own doing.
      for (const { code } of results) expect([0, 1]).toContain(code as number);
      expectUntouched();
    }
    expect(copied).toBeGreaterThan(0);
    const files = await world.sh(`find ${race} -type f`);
    for (const file of files.split('\n').filter(Boolean)) {
      expect(fs.readFileSync(file, 'utf8')).not.toBe('the host');
      read++;
    }
    expect(read).toBeGreaterThan(0);
  }, 60_000);
});
