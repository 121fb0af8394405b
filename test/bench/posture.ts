import fs from 'node:fs';
import os from 'node:os';
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
import { minirun, type World } from '../support/world.ts';
import { image, type Peer } from './peers.ts';

/** How each tool is asked: words of its `run` beside the image. Absent where the tool has no such thing here. */
const variants: readonly { suffix: string; options: (tool: string) => string[] | undefined }[] = [
  { suffix: '', options: () => [] },
  { suffix: ', user', options: () => ['--user', ordinaryUser] },
  { suffix: ', userns', options: (tool) => (tool === 'docker' ? undefined : ['--userns=auto']) },
  {
    suffix: ', userns, user',
    options: (tool) => (tool === 'docker' ? undefined : ['--userns=auto', '--user', ordinaryUser]),
  },
];

/**
 * Asks default containers of every tool the same questions from inside (`test/support/posture-probe.ts`), and writes the
 * answers to `results/posture.json` and as a table into `docs/security.md`.
 *
 * @returns where minirun is weaker than another tool
 */
export async function comparePosture(world: World, peers: readonly Peer[]): Promise<string[]> {
  const columns: Record<string, Answers> = {};
  for (const peer of peers.filter(({ name }) => ['minirun', 'docker', 'podman'].includes(name))) {
    const where = peer.world ?? world;
    const posture = await Posture.prepare(where, `posture-${peer.name}`);
    try {
      for (const { suffix, options } of variants) {
        const words = options(peer.name);
        if (words === undefined) continue;
        // Without the image and the command of the benchmark.
        const run = peer.name === 'minirun' ? [minirun, 'run', '--rm'] : peer.run.slice(0, peer.run.indexOf(image));
        try {
          columns[`${peer.name}${suffix}`] = await posture.ask(where.host, [...run, ...words], image);
        } catch (error) {
          process.stderr.write(`bench: left out ${peer.name}${suffix}: ${(error as Error).message}\n`);
        }
      }
    } finally {
      await posture.end();
    }
  }
  const versions = Object.fromEntries(peers.map(({ name, version }) => [name, version]));
  const recorded: Recorded = {
    date: new Date().toISOString().slice(0, 10),
    machine: `Linux ${os.release()}, ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
    columns,
  };
  fs.writeFileSync(recordedFile, `${JSON.stringify(recorded, null, 1)}\n`);
  const page = path.resolve(import.meta.dir, '../../docs/security.md');
  const text = fs.readFileSync(page, 'utf8');
  const between = /(<!-- posture -->\n)[\s\S]*?(\n<!-- end of posture -->)/;
  fs.writeFileSync(
    page,
    text.replace(between, (_, begin: string, end: string) => `${begin}${renderPosture(recorded)}${end}`),
  );
  return weaknesses(columns);
}
