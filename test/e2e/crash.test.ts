import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { expectOrderlyEvents } from '../support/events.ts';
import { FaultyRegistry } from '../support/faulty-registry.ts';
import { reap } from '../support/faults.ts';
import { archiveOf } from '../support/oci-layout.ts';
import { settledSnapshot } from '../support/leaks.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { expectSoundStore, halfDone } from '../support/store.ts';
import { tar } from '../support/tar-writer.ts';
import { Witness } from '../support/witness.ts';
import {
  createWorld,
  expectNoLeak,
  internetAddress,
  type Result,
  type Snapshot,
  type World,
} from '../support/world.ts';

/**
 * What a minirun that is killed or fails leaves behind. A fault is injected at one boundary of a command after the other,
 * until the command ends without one; after each the next minirun command has to reclaim all, and
 * a container that lives all the time must not notice.
 */

/**
 * All boundaries, or some of them by default, others each day: `faults.test.ts` goes to them, too, with more that can go wrong.
 * MINIRUN_FAULTS=all takes all but those that `every` leaves out.
 */
const isWhole = process.env.MINIRUN_FAULTS === 'all';
const day = Math.floor(Date.now() / 86_400_000);

/** The first boundary that is tried, and how many on the next one is. */
function pace(every: number | undefined, mode: 'kill' | 'fail'): { first: number; step: number } {
  if (isWhole) return { first: mode === 'fail' && every !== undefined ? 2 : 1, step: every ?? 1 };
  const step = every === undefined ? 4 : every * 2;
  return { first: 1 + ((day + (mode === 'fail' ? 2 : 0)) % Math.min(step, 6)), step };
}

/** Milliseconds. */
const patience = isWhole ? 1_800_000 : 240_000;

/** One command, and what has to be there before and may be there after. */
interface Subject {
  name: string;
  /** Made with no fault, before each attempt. */
  before?: string;
  command: string[];
  /** Takes away what the command makes when it succeeds, or what it did not get to take away. */
  after: string[];
  /** A step that fails makes it undo everything at once; the others are tear-downs, which the next command completes. */
  undone?: boolean;
  /** False where it makes no difference whether a network is brought up or taken down. */
  touchesNetwork?: boolean;
  /** Only every so many boundaries, others for `kill` than for `fail`: they are alike, or another subject goes through most of them. */
  every?: number;
  /** A script that does it again and sees that all is as it should be; what the interrupted one did is no obstacle. */
  heals?: string;
}

const sleeper = ['busybox', 'sleep', '1000'];
const running = `run -d --name victim ${sleeper.join(' ')}`;
const removal = ['rm -f victim'];
const subjects: Subject[] = [
  { name: 'run --rm', command: ['run', '--rm', '--name', 'victim', 'busybox', 'true'], after: removal, undone: true },
  { name: 'run -d', command: ['run', '-d', '--name', 'victim', ...sleeper], after: removal, undone: true },
  {
    name: 'create',
    command: ['create', '--name', 'victim', 'busybox', 'true'],
    after: removal,
    undone: true,
    touchesNetwork: false,
  },
  {
    name: 'start',
    // Its health is checked, so there is one process more.
    before: `create --name victim --health-cmd true --health-interval 1h ${sleeper.join(' ')}`,
    command: ['start', 'victim'],
    after: removal,
    undone: true,
  },
  { name: 'stop', before: running, command: ['stop', '-t', '0', 'victim'], after: removal, touchesNetwork: false },
  { name: 'rm -f', before: running, command: ['rm', '-f', 'victim'], after: removal },
  {
    name: 'rm',
    before: 'create --name victim busybox true',
    command: ['rm', 'victim'],
    after: removal,
    touchesNetwork: false,
  },
  { name: 'restart', before: running, command: ['restart', '-t', '0', 'victim'], after: removal },
  { name: 'reap', before: running, command: [], after: removal },
  { name: 'reap with --rm', before: `run -d --rm --name victim ${sleeper.join(' ')}`, command: [], after: removal },
  {
    name: 'reap with --restart',
    before: `run -d --restart always --name victim ${sleeper.join(' ')}`,
    command: [],
    after: removal,
  },
  {
    name: 'rename',
    before: running,
    command: ['rename', 'victim', 'other'],
    after: ['rm -f victim', 'rm -f other'],
    touchesNetwork: false,
  },
  { name: 'network create', command: ['network', 'create', 'net'], after: ['network rm net'], undone: true },
  { name: 'network rm', before: 'network create net', command: ['network', 'rm', 'net'], after: ['network rm net'] },
];

/** Of networks: a container in the default one that joins, leaves, or is in, another of both families. */
const net = 'network create --subnet 10.77.0.0/24 --subnet fd00:77::/64 net';
const joined = `run -d --name victim --network minirun0 --network net ${sleeper.join(' ')}`;
const netGone = ['rm -f victim', 'network rm net'];
const reaches = (...addresses: string[]) =>
  addresses
    .map((address) => `ip netns exec victim ping -q -c 1 -W 1 ${address} >/dev/null || { echo ${address}; exit 1; }`)
    .join('; ');
const networkSubjects: Subject[] = [
  { name: 'network create --ipv6', command: net.split(' '), after: ['network rm net'], undone: true, every: 9 },
  {
    name: 'run with two networks',
    before: net,
    command: joined.split(' '),
    after: netGone,
    every: 9,
  },
  {
    name: 'network connect',
    before: `${running}; minirun ${net}`,
    command: ['network', 'connect', 'net', 'victim'],
    every: 2,
    after: netGone,
    undone: true,
    heals: `minirun network connect net victim 2>/dev/null || :; ${reaches('10.77.0.1', 'fd00:77::1', internetAddress)}`,
  },
  {
    name: 'network disconnect',
    before: `${net}; minirun ${joined}`,
    command: ['network', 'disconnect', 'net', 'victim'],
    every: 2,
    after: netGone,
    heals: `minirun network disconnect net victim 2>/dev/null || :; ! ip -n victim link show eth1 2>/dev/null; minirun network rm net >/dev/null; ${reaches(internetAddress)}`,
  },
  {
    name: 'network reload',
    before: `${net}; minirun ${joined}; ip link del $(ip -j route get 10.77.0.9 | sed 's/.*"dev":"\\([^"]*\\)".*/\\1/'); iptables -F MINIRUN-FORWARD; ip6tables -t nat -F`,
    command: ['network', 'reload'],
    every: 6,
    after: netGone,
    heals: `minirun network reload >/dev/null; ${reaches('10.77.0.1', 'fd00:77::1', internetAddress)}`,
  },
];

/** Of user namespaces: their ids, the process that holds them, what is mounted for them. */
const usernsSubjects: Subject[] = [
  {
    name: 'run in a user namespace',
    command: `run -d --name victim --userns auto ${sleeper.join(' ')}`.split(' '),
    after: removal,
    undone: true,
    every: 7,
  },
  {
    name: 'start in a user namespace',
    before: `create --name victim --userns auto --network none ${sleeper.join(' ')}`,
    command: ['start', 'victim'],
    after: removal,
    undone: true,
    every: 5,
  },
  {
    name: 'rm in a user namespace',
    before: `run -d --name victim --userns auto --network none ${sleeper.join(' ')}`,
    command: ['rm', '-f', 'victim'],
    after: removal,
    every: 4,
  },
];

/** Of limits: whatever has been cut short, the container can be paused, continued and killed, and leaves no cgroup. */
const alone = `run -d --name victim --network none ${sleeper.join(' ')}`;
const obeys =
  'minirun unpause victim >/dev/null 2>&1 || :; minirun pause victim >/dev/null; minirun unpause victim >/dev/null; minirun exec victim true';
const limitSubjects: Subject[] = [
  {
    name: 'run with limits',
    command: ['run', '-d', '--name', 'victim', '--network', 'none', '-m', '64m', '--pids-limit', '50', ...sleeper],
    after: removal,
    undone: true,
    every: 5,
  },
  { name: 'pause', before: alone, command: ['pause', 'victim'], after: removal, every: 2, heals: obeys },
  {
    name: 'update',
    before: alone,
    command: ['update', '-m', '64m', 'victim'],
    after: removal,
    every: 3,
    heals: `minirun update -m 64m --pids-limit 60 victim >/dev/null; [ "$(minirun inspect -f '{{.HostConfig.Memory}}' victim)" = 67108864 ]`,
  },
  {
    name: 'rm -f of a paused one',
    before: `${alone}; minirun pause victim`,
    command: ['rm', '-f', 'victim'],
    after: removal,
    every: 5,
  },
];

const isKilled = (result: Result) => result.signal === 'SIGKILL' || result.code === 137;
const hasFailed = (result: Result) => result.stderr.includes('injected fault');

describe.skipIf(skipOrFail(missingWorld()))('crash safety', () => {
  for (const mode of ['kill', 'fail'] as const) {
    for (const inhabited of [true, false]) {
      test.concurrent(
        `${mode} at boundaries of every command, ${inhabited ? 'beside a live container' : 'with nothing else there'}`,
        async () => {
          await using world = await createWorld();
          const witness = inhabited ? await Witness.start(world) : undefined;
          await warmUp(world);
          const clean = await settledSnapshot(world);
          const counts: string[] = [];
          for (const subject of subjects.filter(({ touchesNetwork }) => inhabited || touchesNetwork !== false)) {
            const count = await iterate(world, subject, mode, clean, witness);
            counts.push(`${subject.name} ${count}`);
            expect(count).toBeGreaterThan(1);
          }
          process.stderr.write(`${mode}, ${inhabited ? 'inhabited' : 'empty'}: ${counts.join(', ')}\n`);
        },
        patience,
      );
    }
  }
});

describe.skipIf(skipOrFail(missingWorld()))('crash safety of limits', () => {
  for (const mode of ['kill', 'fail'] as const) {
    test.concurrent(
      `${mode} at boundaries of what limits and pauses`,
      async () => {
        await using world = await createWorld();
        await warmUp(world);
        const clean = await settledSnapshot(world);
        const counts: string[] = [];
        for (const subject of limitSubjects) {
          const count = await iterate(world, subject, mode, clean);
          counts.push(`${subject.name} ${count}`);
          expect(count).toBeGreaterThan(1);
        }
        process.stderr.write(`${mode}, limits: ${counts.join(', ')}\n`);
      },
      patience,
    );
  }
});

describe.skipIf(skipOrFail(missingWorld()))('crash safety of networks', () => {
  for (const mode of ['kill', 'fail'] as const) {
    test.concurrent(
      `${mode} at boundaries of what changes networks, beside a live container`,
      async () => {
        await using world = await createWorld();
        const witness = await Witness.start(world);
        await warmUp(world);
        const clean = await settledSnapshot(world);
        const counts: string[] = [];
        for (const subject of networkSubjects) {
          const count = await iterate(world, subject, mode, clean, witness);
          counts.push(`${subject.name} ${count}`);
          expect(count).toBeGreaterThan(1);
        }
        process.stderr.write(`${mode}, networks: ${counts.join(', ')}\n`);
      },
      patience,
    );
  }
});

describe.skipIf(skipOrFail(missingWorld()))('crash safety of user namespaces', () => {
  for (const mode of ['kill', 'fail'] as const) {
    test.concurrent(
      `${mode} at the boundaries of what makes and removes one`,
      async () => {
        await using world = await createWorld();
        await warmUp(world);
        const clean = await settledSnapshot(world);
        const counts: string[] = [];
        for (const subject of usernsSubjects) {
          const count = await iterate(world, subject, mode, clean);
          counts.push(`${subject.name} ${count}`);
          expect(count).toBeGreaterThan(1);
        }
        process.stderr.write(`${mode}, user namespaces: ${counts.join(', ')}\n`);
      },
      patience,
    );
  }
});

describe.skipIf(skipOrFail(missingWorld()))('crash safety of the image store', () => {
  for (const mode of ['kill', 'fail'] as const) {
    test.concurrent(
      `${mode} at boundaries of what adds and removes images`,
      async () => {
        await using world = await createWorld();
        await using registry = await FaultyRegistry.start(world);
        const layers = ['one', 'two'].map((name) => tar([{ path: name, content: name }]));
        const { reference } = await registry.publish('victim', layers);
        const archive = path.join(world.directory, 'archive.tar');
        fs.writeFileSync(archive, archiveOf([{ layers, name: 'victim:1' }]));
        const rootfs = path.join(world.directory, 'rootfs.tar');
        fs.writeFileSync(rootfs, tar([{ path: 'three', content: 'three' }]));
        const subjects: StoreSubject[] = [
          { command: ['pull', reference], image: reference },
          { command: ['load', '-i', archive], image: 'victim:1' },
          { command: ['import', rootfs, 'victim:1'], image: 'victim:1' },
          { before: `load -q -i ${archive}`, command: ['rmi', 'victim:1'] },
        ];
        await world.sh('minirun system reconcile');
        const clean = await world.snapshot();
        const counts: string[] = [];
        for (const subject of subjects) {
          const count = await damageStore(world, subject, mode, clean);
          counts.push(`${subject.command[0]} ${count}`);
          if (mode === 'kill' || subject.command[0] === 'pull') expect(count).toBeGreaterThan(5);
        }
        process.stderr.write(`${mode}, images: ${counts.join(', ')}\n`);
      },
      patience,
    );
  }
});

/** A command that changes the image store, and the image that is there when it has succeeded. */
interface StoreSubject {
  before?: string;
  command: string[];
  image?: string;
}

/** @returns the number of boundaries at which the fault was injected */
async function damageStore(
  world: World,
  { before, command, image }: StoreSubject,
  mode: 'kill' | 'fail',
  clean: Snapshot,
): Promise<number> {
  const injected = mode === 'kill' ? isKilled : hasFailed;
  const { first, step } = pace(undefined, mode);
  for (let boundary = first; boundary < 400; boundary += step) {
    if (before !== undefined) await world.sh(`minirun ${before} >/dev/null`);
    const result = await world.run(command, { env: { MINIRUN_FAULT: `${mode}:${boundary}` } });
    try {
      if (mode === 'fail') expect(await halfDone(world, world.root)).toEqual([]);
      // The next command takes away what is left, and what is there is whole.
      else await world.sh('minirun system reconcile');
      await expectSoundStore(world, world.root);
      // It can be done again, and leaves nothing when the image goes.
      const again = image === undefined ? `${command.join(' ')} 2>/dev/null || true` : command.join(' ');
      const look = image === undefined ? '' : `minirun image inspect ${image} >/dev/null;`;
      await world.sh(`minirun ${again} >/dev/null 2>&1; ${look} minirun image prune -af >/dev/null`);
      const files = path.join(world.root, 'images');
      const left = fs.readdirSync(files, { recursive: true }).map(String).toSorted();
      expect(left).toEqual(['blobs', 'blobs/sha256', 'configs', 'index.json', 'layers']);
      await expectNoLeak(clean, world);
    } catch (error) {
      const where = `${command[0]}, ${mode}:${boundary}: ${result.stderr.trim()}`;
      throw new Error(`${where}\n${(error as Error).message}`, { cause: error });
    }
    if (!injected(result)) {
      expect(`${boundary}: ${result.code} ${result.stderr}`).toStartWith(`${boundary}: 0 `);
      return boundary - 1;
    }
  }
  throw new Error(`${command[0]} does not come to an end`);
}

/** @returns the number of boundaries at which the fault was injected */
async function iterate(
  world: World,
  subject: Subject,
  mode: 'kill' | 'fail',
  clean: Snapshot,
  witness?: Witness,
): Promise<number> {
  const injected = mode === 'kill' ? isKilled : hasFailed;
  let kept = 0;
  const { first, step } = pace(subject.every, mode);
  for (let boundary = first; boundary < 400; boundary += step) {
    if (subject.before !== undefined) await world.sh(`minirun ${subject.before}`);
    const comparable = mode === 'fail' && subject.undone === true;
    const before = subject.before === undefined || !comparable ? clean : await world.snapshot();
    const env = { MINIRUN_FAULT: `${mode}:${boundary}` };
    const result = subject.name.startsWith('reap') ? await reap(world, env) : await world.run(subject.command, { env });
    const where = `${subject.name}, ${mode}:${boundary}: ${result.stderr.trim()}`;
    try {
      if (mode === 'fail' && injected(result)) {
        expect(result.stderr).toMatch(/^minirun: [^\n]*\n$/);
        if (subject.name.startsWith('run') || subject.name === 'create') expect(result.code).toBe(125);
        else expect(result.code).not.toBe(0);
        // Undone at once, with no further command.
        if (comparable) await expectNoLeak(before, world, { timeout: 15_000 });
      }
      // The next command, whichever it is, reclaims it all, unless the command had come so far that its work stands.
      if (subject.before === undefined && injected(result)) {
        await world.sh('minirun ps -a > /dev/null');
        if (await stands(world)) expect(++kept).toBeLessThan(8);
        else await expectNoLeak(clean, world, { timeout: 15_000 });
      }
      if (subject.heals !== undefined) await world.sh(subject.heals);
      // Then whatever the interrupted one may rightly have left.
      await world.sh(
        `minirun ps -a > /dev/null; ${subject.after.map((command) => `minirun ${command} > /dev/null 2>&1 || true`).join('; ')}`,
      );
      await expectNoLeak(clean, world, { timeout: 15_000 });
      if (!isWhole || boundary % 4 === 0 || !injected(result)) await witness?.check();
    } catch (error) {
      throw new Error(`${where}\n${(error as Error).message}`, { cause: error });
    }
    if (!injected(result)) {
      expect(`${where} ${result.code}`).toBe(`${where} 0`);
      // Whoever has told what, each thing was told once.
      await expectOrderlyEvents(world);
      return boundary - 1;
    }
  }
  throw new Error(`${subject.name} does not come to an end`);
}

/** Whether what the command makes is there for good; a supervisor may just be taking it down. */
async function stands(world: World): Promise<boolean> {
  if (fs.existsSync(path.join(world.root, 'networks/net.json'))) return true;
  const deadline = Date.now() + 10_000;
  for (;;) {
    try {
      const id = fs.readlinkSync(path.join(world.root, 'names/victim'));
      const state = fs.readFileSync(path.join(world.root, 'containers', id, 'state.json'), 'utf8');
      if (/"status": "(running|created)"/.test(state)) return true;
      if (Date.now() > deadline) throw new Error(`neither there nor gone: ${state}`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function ok(world: World, command: string): Promise<void> {
  await world.sh(`minirun ${command}`);
}

/** The image is built, the state directory made, and the default network written down. */
async function warmUp(world: World): Promise<void> {
  await ok(world, 'run --rm busybox true');
  await ok(world, 'system reconcile');
}
