import { describe, expect, test } from 'bun:test';
import { missingWorld, skipOrFail } from '../support/skip.ts';
import { soak } from '../support/soak.ts';

/** The short version of `npm run soak`: other containers and other kills each day. */
describe.skipIf(skipOrFail(missingWorld()))('soak', () => {
  test('100 containers by 8 workers with random kills: no leak, no lost exit code', async () => {
    const seed = Math.floor(Date.now() / 86_400_000);
    const report = await soak({ containers: 100, workers: 8, seed });
    process.stderr.write(`seed ${seed}: ${JSON.stringify({ ...report, problems: report.problems.length })}\n`);
    expect(report.problems).toEqual([]);
    expect(report.containers).toBe(100);
    expect(Object.keys(report.kills).length).toBeGreaterThan(2);
  }, 240_000);
});
