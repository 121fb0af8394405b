import { describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import { type Fault, FaultLab, faults, type Subject } from '../support/faults.ts';
import { groups } from '../support/fault-subjects.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';

/**
 * Everything that changes something, with each thing that can go wrong, at each boundary where it can: nothing leaks, nothing is
 * damaged, who lives all the time notices nothing, and the user is told in a sentence.
 *
 * A sample by default, another one each day. MINIRUN_FAULTS=all takes all (half an hour on two idle cores), all:2/5 the second
 * of five parts, seed:N the sample of that number, 'only:run -d:full' (or `only:rm:kill:12`) one.
 */
const wanted = process.env.MINIRUN_FAULTS ?? `seed:${Math.floor(Date.now() / 86_400_000)}`;

/** Per group of subjects in a sample. */
const sampleSize = 5;

/** Mulberry32: numbers from 0 to 1, the same for the same seed. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Every boundary of a command, or the `part`th of so many parts of them.
 *
 * @returns the number of the last one, and how many of them were tried
 */
async function all(
  lab: FaultLab,
  subject: Subject,
  fault: Fault,
  [part, parts]: [number, number],
  failures: Error[],
): Promise<{ last: number; tried: number }> {
  let [last, tried] = [0, 0];
  for (let boundary = part; boundary < 400; boundary += parts) {
    try {
      if (!(await lab.inject(subject, fault, boundary))) return { last, tried };
      last = boundary;
      tried++;
    } catch (error) {
      last = boundary;
      tried++;
      failures.push(error as Error);
      log(`FAILED ${(error as Error).message}`);
      await lab.renew();
      // One that never comes to an end must not either.
      if (failures.length > 40) throw new Error('too many failures', { cause: error });
    }
  }
  throw new Error(`${subject.name} does not come to an end`);
}

function log(line: string): void {
  process.stderr.write(`${line}\n`);
  if (process.env.MINIRUN_FAULTS_LOG !== undefined) fs.appendFileSync(process.env.MINIRUN_FAULTS_LOG, `${line}\n`);
}

describe.skipIf(skipOrFail(missingWorld()))('faults', () => {
  for (const { name, prepare, subjects } of groups) {
    const [mode, ...rest] = wanted.split(':');
    test.concurrent(
      `${name}: ${wanted}`,
      async () => {
        await using lab = await FaultLab.open({ prepare, subjects });
        const failures: Error[] = [];
        let injected = 0;
        if (mode === 'all' || mode === 'only') {
          const [command, fault, boundary] = mode === 'all' ? [] : rest;
          const share = mode === 'all' && rest[0] !== undefined ? rest[0].split('/').map(Number) : [1, 1];
          for (const subject of lab.subjects.filter((each) => command === undefined || each.name === command)) {
            const counts: string[] = [];
            for (const each of faults.filter((one) => fault === undefined || one === fault)) {
              if (boundary !== undefined) await lab.inject(subject, each, Number(boundary));
              else {
                const { last, tried } = await all(lab, subject, each, share as [number, number], failures);
                injected += tried;
                counts.push(`${each} ${last}`);
              }
            }
            log(`${subject.name}: ${counts.join(', ')}`);
          }
          log(`${name}: ${injected} faults injected, ${failures.length} failures`);
        } else {
          const random = randomNumbers(Number(rest[0]) * 31 + name.length);
          const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
          for (let left = sampleSize; left > 0; left--) {
            const [subject, fault] = [pick(lab.subjects), pick(faults)];
            // How many boundaries a command has is known when it has got there.
            for (let most = fault.startsWith('tool') ? 8 : 48; most >= 1; most = Math.floor(most / 2))
              if (await lab.inject(subject, fault, 1 + Math.floor(random() * most))) break;
          }
        }
        expect(failures.map(({ message }) => message)).toEqual([]);
      },
      mode === 'all' ? 10_800_000 : 240_000,
    );
  }
});
