import { expect, test } from 'bun:test';
import fs from 'node:fs';
import { readEvents } from '../../../src/container/event-stream.ts';
import { eventFiles, recordEvent } from '../../../src/state/events.ts';
import { ensureStateRoot } from '../../../src/state/paths.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const tell = (id: string) => recordEvent({ type: 'container', action: 'start', id });
const rotate = () => fs.renameSync(eventFiles().current, eventFiles().previous);
const past = () => BigInt(Date.now()) * 1_000_000n;

/** Follows in the background until `end`. */
function follow(since?: bigint) {
  const ending = new AbortController();
  const ids: string[] = [];
  const done = (async () => {
    for await (const { id } of readEvents({ since }, ending.signal)) ids.push(id);
  })();
  const has = async (id: string) => {
    for (let tries = 0; !ids.includes(id); tries++) {
      if (tries > 500) throw new Error(`${id} was not told: ${ids.join(' ')}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const end = async () => {
    ending.abort();
    await done;
    return ids;
  };
  return { has, end };
}

test('followers miss nothing while files are begun and go', async () => {
  ensureStateRoot();
  tell('before');
  const [one, other] = [follow(), follow(0n)];
  await other.has('before');
  tell('a');
  await one.has('a');
  for (let round = 0; round < 5; round++) {
    tell(`last-${round}`);
    // Somebody who has opened the file before writes into it after it has got its other name.
    const late = fs.openSync(eventFiles().current, 'a');
    rotate();
    tell(`first-${round}`);
    await one.has(`first-${round}`);
    fs.writeSync(late, fs.readFileSync(eventFiles().current, 'utf8').replaceAll(`first-${round}`, `late-${round}`));
    fs.closeSync(late);
    await one.has(`late-${round}`);
    await other.has(`late-${round}`);
  }
  const expected = ['a', ...[0, 1, 2, 3, 4].flatMap((n) => [`last-${n}`, `first-${n}`, `late-${n}`])];
  expect(await one.end()).toEqual(expected);
  expect((await other.end()).toSorted()).toEqual(['before', ...expected].toSorted());
});

test('what was is told up to a time, and then it ends', async () => {
  ensureStateRoot();
  tell('one');
  rotate();
  tell('two');
  const until = past();
  fs.appendFileSync(eventFiles().current, '{"schema":1,"time":"99');
  const found: string[] = [];
  for await (const { id } of readEvents({ since: 0n, until }, new AbortController().signal)) found.push(id);
  expect(found).toEqual(['one', 'two']);
});
