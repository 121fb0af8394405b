import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import {
  type Answers,
  ordinaryUser,
  Posture,
  type Recorded,
  recordedFile,
  renderPosture,
  weaknesses,
} from '../support/posture.ts';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { createWorld, minirun, type World } from '../support/world.ts';

const recorded = JSON.parse(fs.readFileSync(recordedFile, 'utf8')) as Recorded;

test('docs/security.md has the table that was recorded', () => {
  const page = fs.readFileSync(path.join(import.meta.dir, '../../docs/security.md'), 'utf8');
  expect(page).toContain(renderPosture(recorded));
});

describe.skipIf(skipOrFail(missingWorld()))('posture', () => {
  let world: World;
  let posture: Posture;

  beforeAll(async () => {
    world = await createWorld();
    posture = await Posture.prepare(world);
  });
  afterAll(async () => {
    await posture.end();
    await world.run(['rm', '-f', '-a']);
    await world.destroy();
  });

  /** The table's answers, with minirun's of now. */
  const now = (column: string, answers: Answers): Record<string, Answers> => ({
    ...recorded.columns,
    [column]: answers,
  });

  for (const [column, options] of [
    ['minirun', []],
    ['minirun, user', ['--user', ordinaryUser]],
    ['minirun, userns', ['--userns=auto']],
    ['minirun, userns, user', ['--userns=auto', '--user', ordinaryUser]],
  ] as const) {
    test(`${column}: nowhere weaker than docker and podman`, async () => {
      const answers = await posture.ask(world.host, [minirun, 'run', '--rm', ...options], 'busybox');
      expect(Object.keys(answers).sort()).toEqual(Object.keys(recorded.columns[column] ?? {}).sort());
      expect(weaknesses(now(column, answers))).toEqual([]);
    });
  }

  test('the comparison sees what is weaker', async () => {
    const answers = await posture.ask(world.host, [minirun, 'run', '--rm', '--privileged'], 'busybox');
    const found = weaknesses(now('minirun', answers)).join('\n');
    for (const row of [
      'status CapEff',
      'status Seccomp',
      'call mount',
      'write /proc/sys/kernel/core_pattern',
      'call bpf',
    ])
      expect(found).toContain(`minirun: ${row}`);
  });
});
