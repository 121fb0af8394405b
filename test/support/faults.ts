import { expect } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { type ToolFault, FaultyTools } from './faulty-tools.ts';
import { expectNoLeak, settledSnapshot } from './leaks.ts';
import { Witness } from './witness.ts';
import { createWorld, minirun, type Result, type Snapshot, type World } from './world.ts';

/**
 * What can go wrong at a boundary. `kill` and `fail` count the fault points of minirun (src/host/fault.ts), `enospc` and `full` what
 * it writes (src/host/full-disk.ts), the others the host tools that it runs.
 */
export const faults = ['kill', 'fail', 'enospc', 'full', 'tool fails', 'tool half', 'tool killed'] as const;
export type Fault = (typeof faults)[number];

/** One command, and what has to be there before and may be there after. */
export interface Subject {
  name: string;
  /** A script that makes what it needs, with no fault. */
  before?: string;
  /** Arguments of minirun; for `reap` none: it is what a supervisor becomes. */
  command: string[];
  /** A script that takes away what the command makes, or what it did not get to take away. */
  after: string;
  /** One failure makes it undo everything at once, so that all is as it was with no further command. */
  undone?: true;
  /** A script that does it again and sees that all is as it should be; what the interrupted one did is no obstacle. */
  heals?: string;
  /** A script that succeeds when the command has done what it says. */
  done?: string;
  /** Exit codes that it may fail with, besides 1 and 125. */
  codes?: readonly number[];
}

/** What a world is to have, and the commands that are to fail in it. */
interface Making {
  prepare?: (world: World) => Promise<unknown>;
  subjects: (world: World) => Subject[] | Promise<Subject[]>;
}

interface Parts {
  world: World;
  witness: Witness;
  tools: FaultyTools;
  subjects: Subject[];
  clean: Snapshot;
  images: string[];
}

async function parts({ prepare, subjects }: Making): Promise<Parts> {
  const world = await createWorld();
  const witness = await Witness.start(world);
  await prepare?.(world);
  const made = await subjects(world);
  const tools = await FaultyTools.make(world);
  await world.sh('minirun run --rm busybox true; minirun system reconcile');
  return { world, witness, tools, subjects: made, clean: await settledSnapshot(world), images: imagesOf(world) };
}

/** A world in which faults are injected into commands, one after the other. */
export class FaultLab {
  private constructor(
    private readonly make: Making,
    private parts: Parts,
  ) {}

  static async open(make: Making): Promise<FaultLab> {
    return new FaultLab(make, await parts(make));
  }

  get subjects(): readonly Subject[] {
    return this.parts.subjects;
  }

  /** Another world, after something has been left in this one. */
  async renew(): Promise<void> {
    await this.parts.world.destroy();
    this.parts = await parts(this.make);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.parts.world.destroy();
  }

  /** Injects a fault at one boundary of a command. @returns whether the command has come so far */
  async inject({ name }: Pick<Subject, 'name'>, fault: Fault, boundary: number): Promise<boolean> {
    const { world, clean, witness, images } = this.parts;
    // Those of a world know where its files are.
    const subject = this.subjects.find((each) => each.name === name) as Subject;
    if (subject.before !== undefined) await world.sh(subject.before, { timeout: 60_000 });
    const comparable = subject.undone === true && fault !== 'kill' && fault !== 'full';
    const before = comparable && subject.before !== undefined ? await snapshotOf(world, subject.before) : clean;
    const result = await this.run(subject, fault, boundary);
    const where = `${subject.name}, ${fault} at ${boundary}`;
    const title = `${where}: ${result.injected ?? 'no fault'}: ${result.code ?? result.signal}: ${result.stderr}`;
    try {
      expect(damagedFiles(world.root)).toEqual([]);
      if (result.injected === undefined) expect(result.code).toBe(0);
      else if (fault !== 'kill') expectOrderly(result, subject, fault);
      if (result.code === 0 && subject.done !== undefined) await world.sh(subject.done);
      if (result.injected !== undefined && result.code !== 0 && comparable)
        await expectNoLeak(before, world, { timeout: 12_000 });
      // The next command reclaims what is left, and nothing is damaged.
      const script = [
        'minirun ps -a >/dev/null; minirun network ls >/dev/null',
        // What nobody needs stays among the images until something is added there, or somebody asks.
        ...(imagesOf(world).join() === images.join()
          ? []
          : ['minirun system check --quick || { minirun system reconcile; minirun system check --quick; }']),
        subject.heals ?? '',
        subject.after,
      ];
      await world.sh(script.join('\n'), { timeout: 60_000 });
      await expectNoLeak(clean, world, { timeout: 12_000 });
      if (imagesOf(world).join() !== images.join()) await world.sh('minirun system reconcile');
      expect(imagesOf(world)).toEqual(images);
      if (boundary % 5 === 0 || result.injected === undefined) await witness.check();
      else witness.expectSame();
    } catch (error) {
      const said = path.join(world.directory, 'after.log');
      const after = fs.existsSync(said) ? fs.readFileSync(said, 'utf8').trim().split('\n').slice(-3).join('\n') : '';
      throw new Error(`${title}\n${(error as Error).message}\nafterwards: ${after}`, { cause: error });
    }
    return result.injected !== undefined;
  }

  private async run(
    { command, name }: Subject,
    fault: Fault,
    boundary: number,
  ): Promise<Result & { injected?: string }> {
    const { world, tools } = this.parts;
    const isTool = fault.startsWith('tool ');
    const env = isTool
      ? tools.arm(world.host.env, boundary, fault.slice('tool '.length) as ToolFault)
      : { MINIRUN_FAULT: `${fault}:${boundary}` };
    // Set inside: the tools that enter the world are to be the real ones.
    const settings = Object.entries(env).map(([key, value]) => `${key}=${value}`);
    const result = name.startsWith('reap')
      ? await reap(world, env)
      : await world.host.run(['env', ...settings, minirun, ...command]);
    if (isTool) return { ...result, injected: tools.injected() };
    const marks = {
      kill: /killed at .*/,
      fail: /injected fault.*/,
      enospc: /disk full at .*/,
      full: /disk full at .*/,
    };
    const injected = marks[fault as keyof typeof marks].exec(result.stderr)?.[0];
    const killed = fault === 'kill' && (result.signal === 'SIGKILL' || result.code === 137);
    return {
      ...result,
      injected: killed ? (injected ?? 'killed') : fault === 'kill' ? undefined : injected,
      // The faults' own marks are no messages.
      stderr: result.stderr.replaceAll(/^minirun: disk full at .*\n/gm, ''),
    };
  }
}

/** What there is after a script, which leaves nothing that goes by itself unless it stops something. */
async function snapshotOf(world: World, script: string): Promise<Snapshot> {
  return script.includes(' stop ') ? settledSnapshot(world) : world.snapshot();
}

/** What a user sees of a failure: sentences, one a line, and an exit code that is documented. */
function expectOrderly({ code, stderr }: Result, { name, codes = [] }: Subject, fault: Fault): void {
  expect(stderr).not.toMatch(/internal error|\n\s+at |undefined|\[object/);
  // A tool that is optional, or what could be done later, is no failure.
  if (code === 0 && fault !== 'fail') return;
  expect(stderr).toMatch(/^(minirun: warning: [^\n]*\n)*(minirun: [^\n]*\n){1,2}$/);
  const allowed = /^(run|create)/.test(name) ? [125, ...codes] : [1, 125, ...codes];
  expect(allowed).toContain(code ?? -1);
}

/** The JSON files of a state directory that cannot be read. */
export function damagedFiles(root: string): string[] {
  const found: string[] = [];
  const walk = (directory: string): void => {
    for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
      const file = path.join(directory, entry.name);
      if (entry.isDirectory() && !['upper', 'rootfs', 'work', 'layers', '_data', 'blobs'].includes(entry.name)) {
        try {
          walk(file);
        } catch {
          // A supervisor has just taken it away.
        }
      } else if (entry.name.endsWith('.json')) {
        try {
          JSON.parse(fs.readFileSync(file, 'utf8'));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT') found.push(file);
        }
      }
    }
  };
  walk(root);
  return found;
}

/** What is in the image store, but the index. */
function imagesOf({ root }: World): string[] {
  const images = path.join(root, 'images');
  return ['', 'layers', 'configs', 'blobs/sha256'].flatMap((directory) => {
    const place = path.join(images, directory);
    const entries = fs.existsSync(place) ? fs.readdirSync(place) : [];
    return entries
      .filter((entry) => !/^(layers|configs|blobs)$/.test(entry))
      .map((entry) => path.join(directory, entry));
  });
}

/** Ends the container `victim` as if its supervisor did, which then becomes `minirun reap` with that environment. */
export async function reap(world: World, env: Record<string, string>): Promise<Result> {
  const id = fs.readlinkSync(path.join(world.root, 'names/victim'));
  const file = path.join(world.root, 'containers', id, 'state.json');
  const state = JSON.parse(fs.readFileSync(file, 'utf8')) as { init: { pid: number }; owner: object & { pid: number } };
  const settings = Object.entries(env).map(([key, value]) => `${key}=${value}`);
  const script = 'read go; id=$0; exec env "$@" minirun reap "$id"';
  const supervisor = await world.host.spawn(['sh', '-c', script, id, ...settings]);
  const stat = fs.readFileSync(world.host.path(`/proc/${supervisor.innerPid}/stat`), 'latin1');
  const start = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  await world.sh(`kill -KILL ${state.owner.pid} ${state.init.pid}`);
  fs.writeFileSync(file, JSON.stringify({ ...state, owner: { pid: supervisor.innerPid, start } }));
  supervisor.write('\n');
  return supervisor.exit;
}
