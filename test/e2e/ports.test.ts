import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { Probe } from '../support/probe.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, expectNoLeak, hostAddress, type Snapshot, type World } from '../support/world.ts';

describe.skipIf(skipOrFail(missingWorld()))('ports', () => {
  let world: World;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.run(['run', '--rm', '--network', 'none', 'busybox', 'true']);
    before = await world.snapshot();
  });
  afterEach(async () => {
    await world.run(['rm', '-f', '-a']);
    await expectNoLeak(withPorts(before), { snapshot: async () => withPorts(await world.snapshot()) });
  });
  afterAll(async () => {
    await world?.destroy();
  });

  /** Which port was free last stays on file. */
  const withPorts = (snapshot: Snapshot): Snapshot => ({
    ...snapshot,
    state: snapshot.state.filter((name) => name !== 'ports.json'),
  });
  const start = (name: string, ...options: string[]) =>
    world.run(['run', '-d', '--name', name, ...options, 'busybox', 'sleep', '1000']);
  const started = async (name: string, ...options: string[]) => {
    const { code, stderr } = await start(name, ...options);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  };
  const portOf = async (...args: string[]) => (await world.run(['port', ...args])).stdout;
  const column = async (name: string) =>
    (await world.run(['ps', '--filter', `name=${name}`, '--format', '{{.Ports}}'])).stdout.trim();

  test('port and the column of ps', async () => {
    await started('web', '-p', '8080:80', '-p', '127.0.0.1:5353:53/udp', '-p', '7000-7002:7000-7002', '--expose', '9');
    expect(await portOf('web')).toBe(
      [
        '53/udp -> 127.0.0.1:5353',
        '80/tcp -> 0.0.0.0:8080',
        '7000/tcp -> 0.0.0.0:7000',
        '7001/tcp -> 0.0.0.0:7001',
        '7002/tcp -> 0.0.0.0:7002',
        '',
      ].join('\n'),
    );
    expect(await portOf('web', '80')).toBe('0.0.0.0:8080\n');
    expect(await portOf('web', '80/tcp')).toBe('0.0.0.0:8080\n');
    expect(await portOf('web', '53/udp')).toBe('127.0.0.1:5353\n');
    expect(await column('web')).toBe(
      '9/tcp, 0.0.0.0:7000-7002->7000-7002/tcp, 127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp',
    );
    const none = await world.run(['port', 'web', '53']);
    expect({ code: none.code, stdout: none.stdout }).toEqual({ code: 1, stdout: '' });
    expect(none.stderr).toContain('port 53 of container "web" is not published');
    await world.run(['stop', '-t', '0', 'web']);
    expect(await portOf('web')).toBe('');
    expect(await column('web')).toBe('');
  });

  test('a range of both sides answers port by port; one that is shifted too', async () => {
    await started('web', '-p', '7000-7002:7000-7002', '-p', '9000-9001:7000-7001');
    const server = await Probe.start(world.host, 'web');
    await server.serve('web', [7000, 7001, 7002]);
    const client = await Probe.start(world.internet);
    const ask = [7000, 7001, 7002, 9000, 9001].map(
      (port) => ({ protocol: 'tcp', address: hostAddress, port }) as const,
    );
    expect(await client.ask(ask)).toEqual(['web 7000', 'web 7001', 'web 7002', 'web 7000', 'web 7001']);
    await client.end();
    await server.end();
  });

  test('free ports: chosen from the kernel’s range, another one after each start', async () => {
    await started('web', '-p', '80');
    const first = Number((await portOf('web', '80')).trim().split(':')[1]);
    expect(first).toBeGreaterThanOrEqual(32768);
    expect(first).toBeLessThanOrEqual(60999);
    expect((await world.run(['restart', '-t', '0', 'web'])).code).toBe(0);
    const second = Number((await portOf('web', '80')).trim().split(':')[1]);
    expect(second).toBe(first + 1);
  });

  test('the first free one of a range of the host', async () => {
    await started('web1', '-p', '8000-8001:80');
    await started('web2', '-p', '8000-8001:80');
    expect([await portOf('web1', '80'), await portOf('web2', '80')]).toEqual(['0.0.0.0:8000\n', '0.0.0.0:8001\n']);
    const late = await start('web3', '-p', '8000-8001:80');
    expect(late.code).toBe(125);
    expect(late.stderr).toMatch(/8000-8001\/tcp.*all of them are taken/);
  });

  test('-P publishes what is exposed, and leaves what -p has', async () => {
    await started('web', '-P', '--expose', '80', '--expose', '53/udp', '-p', '8080:80');
    expect(await portOf('web')).toMatch(/^53\/udp -> 0\.0\.0\.0:\d+\n80\/tcp -> 0\.0\.0\.0:8080\n$/);
  });

  test('on one address of the host only', async () => {
    await started('web1', '-p', `${hostAddress}:8080:80`);
    await started('web2', '-p', '127.0.0.1:8080:80');
    const taken = await start('web3', '-p', '8080:80');
    expect(taken.code).toBe(125);
    const foreign = await start('web4', '-p', '192.0.2.77:8080:80');
    expect(foreign.code).toBe(125);
    expect(foreign.stderr).toMatch(/this host does not have that address; it has 127\.0\.0\.1, .*203\.0\.113\.2/);
  });

  test('nothing is left of what is refused', async () => {
    for (const text of ['http:80', '80:80/icmp', '8000-8002:80-81', '[::1]:8080:80']) {
      const { code, stdout, stderr } = await start('web', '-p', text);
      expect({ text, code, stdout }).toEqual({ text, code: 125, stdout: '' });
      expect(stderr).toMatch(/^minirun: [^\n]*\n$/);
      expect((await world.run(['ps', '-a', '-q'])).stdout).toBe('');
    }
  });

  test('a port is free again as soon as its container has ended', async () => {
    for (let round = 0; round < 3; round++) {
      const { code, stdout } = await world.run(['run', '--rm', '-p', '8080:80', 'busybox', 'echo', 'hello']);
      expect({ code, stdout }).toEqual({ code: 0, stdout: 'hello\n' });
    }
    await started('web', '-p', '8080:80');
    await world.run(['stop', '-t', '0', 'web']);
    await started('other', '-p', '8080:80');
    // Its definition has the port still.
    expect((await world.run(['start', 'web'])).code).not.toBe(0);
    await world.run(['rm', '-f', 'other']);
    expect((await world.run(['start', 'web'])).code).toBe(0);
    expect(await portOf('web', '80')).toBe('0.0.0.0:8080\n');
  });

  test('20 that want a free port at once get 20', async () => {
    const names = Array.from({ length: 20 }, (_, index) => `c${index}`);
    const results = await Promise.all(names.map((name) => start(name, '-p', '80')));
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual(names.map(() => ({ code: 0, stderr: '' })));
    const ports = await Promise.all(names.map((name) => portOf(name, '80')));
    expect(new Set(ports).size).toBe(20);
    for (const port of ports) expect(port).toMatch(/^0\.0\.0\.0:\d+\n$/);
  });

  test('of 5 that want the same port one gets it', async () => {
    const results = await Promise.all(
      ['web1', 'web2', 'web3', 'web4', 'web5'].map((name) => start(name, '-p', '8080:80')),
    );
    expect(results.filter(({ code }) => code === 0)).toHaveLength(1);
    expect(results.filter(({ code }) => code === 125)).toHaveLength(4);
  });
});
