import { soak } from './support/soak.ts';
import { missingWorld } from './support/skip.ts';

// npm run soak -- [CONTAINERS [WORKERS [SEED]]]: many short containers in a world of their own, with random kills.

const missing = missingWorld();
if (missing !== undefined) throw new Error(`cannot build a world: ${missing}`);
const [containers = 2000, workers = 8, seed = Math.floor(Date.now() / 1000) % 100_000] = process.argv
  .slice(2)
  .map(Number);
console.log(`${containers} containers, ${workers} workers, seed ${seed}`);
const report = await soak({ containers, workers, seed, progress: console.log });
const { problems, kills, seconds, commands, codes } = report;
const killed = Object.values(kills).reduce((sum, count) => sum + count, 0);
console.log(
  `${report.containers} containers, ${commands} commands, ${codes} exit codes compared, ${killed} kills (${Object.entries(
    kills,
  )
    .map(([what, count]) => `${what} ${count}`)
    .join(', ')}), ${seconds.toFixed(0)} s: ${problems.length} problems`,
);
for (const problem of problems) console.log(problem);
process.exit(problems.length === 0 ? 0 : 1);
