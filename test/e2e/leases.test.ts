import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { simulateReboot } from '../support/reboot.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { settledSnapshot } from '../support/leaks.ts';
import { createWorld, expectNoLeak, type Result, type Snapshot, type World } from '../support/world.ts';

/**
 * Addresses of containers, seen from outside: who has which is asked of the namespaces themselves, what minirun believes
 * of `network inspect`. (test/unit/network/ipam.test.ts has the arithmetic, crash.test.ts a death at every boundary.)
 */

// Eight addresses less those of the network, the broadcast and the gateway.
const subnet = '10.77.0.0/29';
const pool = ['10.77.0.2', '10.77.0.3', '10.77.0.4', '10.77.0.5', '10.77.0.6'];
const sleeper = ['busybox', 'sleep', '100000'];

interface Inspected {
  Containers: Record<string, { Name: string; IPv4Address: string }>;
}

describe.skipIf(skipOrFail(missingWorld()))('leases', () => {
  let world: World;
  let empty: Snapshot;
  let before: Snapshot;

  beforeAll(async () => {
    world = await createWorld();
    await world.sh('minirun run --rm --network none busybox true');
    empty = await settledSnapshot(world);
    await world.sh(`minirun network create --subnet ${subnet} small`);
    before = await settledSnapshot(world);
  }, 30_000);
  afterAll(() => world.destroy());

  const start = (name: string, ...options: string[]): Promise<Result> =>
    world.run(['run', '-d', '--name', name, '--network', 'small', ...options, ...sleeper]);

  async function expectStarted(name: string, ...options: string[]): Promise<void> {
    const { code, stderr } = await start(name, ...options);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  }

  const expectRefused = ({ code, stderr }: Result, why: RegExp): void => {
    expect(stderr).toMatch(/^minirun: [^\n]*\n$/);
    expect(stderr).toMatch(why);
    expect(code).toBe(125);
  };

  /** Address by the name of the namespace: what is so. */
  async function inFact(place: World = world): Promise<Record<string, string>> {
    const script = `for name in $(ls /run/netns); do
      echo $name $(ip -n $name -4 -br addr show scope global | sed 's/.* \\([0-9.]*\\)\\/.*/\\1/'); done`;
    const lines = (await place.sh(script, { timeout: 60_000 })).split('\n').filter((line) => line !== '');
    return Object.fromEntries(lines.map((line) => line.split(' ') as [string, string]));
  }

  /** Address by name of the container: what minirun has on record. */
  async function onRecord(network: string, place: World = world): Promise<Record<string, string>> {
    const [inspected] = JSON.parse(await place.sh(`minirun network inspect ${network}`)) as Inspected[];
    return Object.fromEntries(
      Object.values(inspected?.Containers ?? {}).map(({ Name, IPv4Address }) => [
        Name,
        IPv4Address.replace(/\/.*/, ''),
      ]),
    );
  }

  async function removeAll(): Promise<void> {
    await world.sh('minirun rm -f -a');
    expect(await onRecord('small')).toEqual({});
    await expectNoLeak(before, world);
  }

  /** Every address of the pool is to be had, by one container each. */
  async function expectWholePool(): Promise<void> {
    for (const [index] of pool.entries()) await expectStarted(`whole${index}`);
    const addresses = await inFact();
    expect(Object.values(addresses).toSorted()).toEqual(pool);
    expect(await onRecord('small')).toEqual(addresses);
  }

  test('a pool of five: the sixth container is refused with the reason and leaves nothing, until one has gone', async () => {
    await expectWholePool();
    const full = await world.snapshot();
    expectRefused(await start('sixth'), /no address left[^\n]*small[^\n]*10\.77\.0\.0\/29[^\n]*minirun rm/);
    await expectNoLeak(full, world);
    const gone = (await inFact()).whole2;
    await world.sh('minirun rm -f whole2');
    await expectStarted('sixth');
    expect((await inFact()).sixth).toBe(gone as string);
    // One that has only ended needs none, and gets one again as long as there is one.
    await world.sh('minirun stop -t 0 whole0');
    await expectStarted('seventh');
    const again = await world.run(['start', 'whole0']);
    expect(again.code).not.toBe(0);
    expect(again.stderr).toContain('no address left');
    await world.sh('minirun rm -f seventh; minirun start whole0');
    expect(Object.values(await inFact()).toSorted()).toEqual(pool);
    await removeAll();
  }, 30_000);

  test('ten at once for five addresses: five have one each, five are refused', async () => {
    const results = await Promise.all(Array.from({ length: 10 }, (_, index) => start(`rival${index}`)));
    for (const refused of results.filter(({ code }) => code !== 0)) expectRefused(refused, /no address left/);
    const addresses = await inFact();
    expect(Object.values(addresses).toSorted()).toEqual(pool);
    expect(await onRecord('small')).toEqual(addresses);
    await removeAll();
  }, 30_000);

  test('an address of another container is refused, and the holder keeps it', async () => {
    await expectStarted('holder', '--ip', '10.77.0.5');
    const held = await world.snapshot();
    expectRefused(await start('thief', '--ip', '10.77.0.5'), /10\.77\.0\.5[^\n]* has it/);
    await expectNoLeak(held, world);
    // Of those that are given out by turns none is that one.
    for (let index = 0; index < 4; index++) await expectStarted(`other${index}`);
    expect((await inFact()).holder).toBe('10.77.0.5');
    expect(Object.values(await inFact()).toSorted()).toEqual(pool);
    await world.sh('minirun rm -f other0 other1 other2 other3');

    // Ended, it has let go of it. Who has taken it meanwhile keeps it, and the first one starts when that is gone.
    await world.sh('minirun stop -t 0 holder');
    await expectStarted('heir', '--ip', '10.77.0.5');
    const refused = await world.run(['start', 'holder']);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/10\.77\.0\.5[^\n]* has it/);
    expect(await inFact()).toEqual({ heir: '10.77.0.5' });
    await world.sh('minirun rm -f heir; minirun start holder');
    expect(await inFact()).toEqual({ holder: '10.77.0.5' });
    await removeAll();
  }, 30_000);

  test('two that want the same address at the same time: one gets it', async () => {
    for (let round = 0; round < 3; round++) {
      const results = await Promise.all(['one', 'two', 'three'].map((name) => start(name, '--ip', '10.77.0.4')));
      expect(results.filter(({ code }) => code === 0).length).toBe(1);
      for (const refused of results.filter(({ code }) => code !== 0))
        expectRefused(refused, /10\.77\.0\.4[^\n]* has it/);
      expect(Object.values(await inFact())).toEqual(['10.77.0.4']);
      await removeAll();
    }
  }, 30_000);

  test('an address that was given back is not given again before its turn', async () => {
    const seen: string[] = [];
    for (let round = 0; round < 2 * pool.length; round++) {
      await expectStarted('next');
      seen.push((await inFact()).next as string);
      await world.sh('minirun rm -f next');
    }
    expect(seen.slice(0, pool.length).toSorted()).toEqual(pool);
    expect(seen.slice(pool.length)).toEqual(seen.slice(0, pool.length));
    await removeAll();
  }, 30_000);

  test('kill -9 between lease and start, more often than there are addresses: none is lost, none is given twice', async () => {
    await expectStarted('witness');
    const witness = (await inFact()).witness as string;
    const places = ['address.leased', 'steps.recorded', 'network.connected'];
    const met = new Set<string>();
    const victimIsGone = async () => {
      for (const end = Date.now() + 10_000; (await world.sh('minirun ps -a')).includes(' victim'); )
        if (Date.now() > end) throw new Error('the victim is still there');
    };
    for (let boundary = 1; met.size < places.length; boundary++) {
      expect(boundary).toBeLessThan(100);
      const kill = () =>
        world.run(['run', '-d', '--name', 'victim', '--network', 'small', ...sleeper], {
          env: { MINIRUN_FAULT: `kill:${boundary}` },
        });
      const { stderr } = await kill();
      const place = places.find((each) => stderr === `minirun: killed at ${each}\n`);
      if (place === undefined) {
        await world.sh('minirun rm -f victim');
        continue;
      }
      met.add(place);
      for (let round = 0; round < pool.length; round++) {
        // Any command takes back what a killed one has left, unless its supervisor is at it; a taken name or a used up pool
        // would refuse the next.
        await victimIsGone();
        expect((await kill()).stderr).toBe(stderr);
      }
      await victimIsGone();
      expect(await inFact()).toEqual({ witness });
      expect(await onRecord('small')).toEqual({ witness });
    }
    await world.sh('minirun rm -f witness');
    await expectWholePool();
    await removeAll();
  }, 60_000);

  test('a reboot frees all, also what nobody has looked at since, and a container may have its address again', async () => {
    await expectStarted('fixed', '--ip', '10.77.0.6');
    for (const name of ['one', 'two', 'three']) await expectStarted(name);
    await world.sh('minirun run -d --rm --name gone --network small busybox sleep 100000');
    expect(Object.values(await inFact()).toSorted()).toEqual(pool);
    await simulateReboot(world);
    // The first command after the boot wants the address of a container that was running.
    await expectStarted('early', '--ip', '10.77.0.6');
    expect(await onRecord('small')).toEqual({ early: '10.77.0.6' });
    const refused = await world.run(['start', 'fixed']);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/10\.77\.0\.6[^\n]* has it/);
    await world.sh('minirun start one two three; minirun rm -f early; minirun start fixed');
    await expectStarted('last');
    const addresses = await inFact();
    expect(Object.keys(addresses).toSorted()).toEqual(['fixed', 'last', 'one', 'three', 'two']);
    expect(Object.values(addresses).toSorted()).toEqual(pool);
    expect(await onRecord('small')).toEqual(addresses);
    // Not as before: the network's own processes are others since.
    await world.sh('minirun rm -f -a; minirun network rm small');
    await expectNoLeak(empty, world);
    await world.sh(`minirun network create --subnet ${subnet} small`);
    before = await settledSnapshot(world);
  }, 30_000);

  test('100 at once: 100 addresses, each in its own namespace and on record, and nothing is left when they go', async () => {
    const script = `for i in $(seq 100); do minirun run -d --name crowd$i busybox sleep 100000 & done; wait`;
    const ids = (await world.sh(script, { timeout: 60_000 })).trim().split('\n');
    expect(new Set(ids).size).toBe(100);
    const addresses = await inFact();
    expect(Object.keys(addresses).length).toBe(100);
    expect(new Set(Object.values(addresses)).size).toBe(100);
    expect(Object.values(addresses).every((address) => address.startsWith('10.90.0.'))).toBe(true);
    expect(await onRecord('minirun0')).toEqual(addresses);
    await world.sh('minirun rm -f -a', { timeout: 60_000 });
    await expectNoLeak(before, world);
    await world.sh('minirun network rm small');
    await expectNoLeak(empty, world);
  }, 60_000);
});
