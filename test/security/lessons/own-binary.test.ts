import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { librariesOf } from '../../support/posture.ts';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, minirun, type World } from '../../support/world.ts';

// Init is the host's binary. A command that is `#!/proc/self/exe` makes the container run it again, now as a process of
// its own, and /proc/PID/exe leads to it: runc was overwritten that way.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2019-5736: the host’s binary, by /proc/PID/exe', () => {
  let world: World;
  /** A copy: should the protection fail, the binary of the other tests stays whole. */
  let binary: string;

  beforeAll(async () => {
    world = await createWorld();
    binary = path.join(world.directory, 'minirun-copy');
    fs.copyFileSync(minirun, binary);
    fs.chmodSync(binary, 0o755);
  });
  afterAll(async () => {
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  // The dynamic loader waits for somebody to read what it has to say: the process stays what it is until it is killed,
  // since a program that runs cannot be written to in any case. Its descriptor stays with the attacker.
  const hold = ['-e', 'LD_DEBUG=all', '-e', 'LD_DEBUG_OUTPUT=/wait'];
  const prepare = `printf '#!/proc/self/exe run\\n' >/evil; chmod 755 /evil
    seq 1 500 | sed 's,^,/wait.,' | xargs mkfifo; touch /ready`;
  const attack = `
    held=
    while [ -z "$held" ]; do
      for p in /proc/[0-9]*; do case $(readlink $p/exe) in */minirun-copy*) held=$p ;; esac; done
    done
    exec 9<$held/exe
    kill -9 \${held#/proc/}
    while [ -e $held/exe ] && [ -n "$(readlink $held/exe)" ]; do :; done
    echo held
    until (echo overwritten >>/proc/self/fd/9) 2>/why || ! grep -q busy /why; do :; done
    cat /why
    chmod 777 /proc/self/fd/9 2>&1
    echo over`;

  /** The attacker is a process of the container already, and the victim one that enters it. */
  test('by exec', async () => {
    const libraries = librariesOf(binary);
    const script = `${prepare}; ${attack}; sleep 1000`;
    const start = ['run', '-d', '--name', 'hostile', '--network', 'none', ...libraries, 'busybox', 'sh', '-c', script];
    expect(await world.host.run([binary, ...start])).toMatchObject({ code: 0, stderr: '' });
    while ((await world.host.run([binary, 'exec', 'hostile', 'test', '-e', '/ready'])).code !== 0);
    // It ends when the attacker kills it.
    expect((await world.host.run([binary, 'exec', ...hold, 'hostile', '/evil'])).code).toBe(137);
    const said = await world.spawn(['logs', '-f', 'hostile']);
    await said.waitFor('over\n');
    said.kill();
    const { output } = await said.exit.then(() => ({ output: said.output() }));
    expect(output).toMatch(/^held\n.*Read-only file system\n.*Read-only file system\nover\n$/);
    await world.run(['rm', '-f', 'hostile']);
    expect(await world.sh(`cmp ${binary} ${minirun} && echo same`)).toBe('same\n');
  });

  test('by run: the first process of a container is its own victim', async () => {
    const libraries = librariesOf(binary);
    const image = ['run', '--name', 'evil', '--network', 'none', 'busybox', 'sh', '-c', prepare];
    expect((await world.run(image)).code).toBe(0);
    await world.run(['commit', 'evil', 'evil']);
    const start = ['run', '-d', '--name', 'victim', '--network', 'none', ...hold, ...libraries, 'evil', '/evil'];
    expect(await world.host.run([binary, ...start])).toMatchObject({ code: 0 });
    // Whoever comes in with the container's rights: it cannot kill pid 1, so the program still runs; only the mount counts.
    const open = `case $(readlink /proc/1/exe) in */minirun-copy*) echo held ;; esac; exec 9</proc/1/exe; chmod 777 /proc/self/fd/9 2>&1`;
    const { stdout } = await world.run(['exec', 'victim', 'sh', '-c', open]);
    expect(stdout).toMatch(/^held\n.*Read-only file system\n$/);
  });
});
