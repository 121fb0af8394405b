import { expect } from 'bun:test';
import path from 'node:path';
import type { World } from './world.ts';

interface Index {
  images: Record<string, { manifest?: { digest: string } }>;
  layers: Record<string, { blob?: { digest: string } }>;
}

/**
 * Fails unless an image store has nothing half-done in it now, is whole, and has nothing that no image needs after a
 * sweep.
 */
export async function expectSoundStore(world: World, root: string): Promise<void> {
  const env = { MINIRUN_ROOT: root };
  expect(await halfDone(world, root)).toEqual([]);
  const check = await world.run(['system', 'check'], { env });
  expect({ code: check.code, stdout: check.stdout }).toEqual({
    code: 0,
    stdout: expect.stringMatching(/: no damage\n$/),
  });
  await world.sh('minirun system reconcile', { env });
  const images = path.join(root, 'images');
  const text = await world.sh(`cat ${images}/index.json 2>/dev/null || echo '{"images":{},"layers":{}}'`);
  const index = JSON.parse(text) as Index;
  const hex = (digests: (string | undefined)[]): string[] =>
    digests.flatMap((digest) => (digest === undefined ? [] : [digest.replace('sha256:', '')])).toSorted();
  const list = async (directory: string): Promise<string[]> =>
    (await world.sh(`ls ${images}/${directory} 2>/dev/null || true`)).split('\n').filter((line) => line !== '');
  expect(await list('layers')).toEqual(hex(Object.keys(index.layers)));
  const archives = Object.values(index.layers).map(({ blob }) => blob?.digest);
  const manifests = Object.values(index.images).map(({ manifest }) => manifest?.digest);
  expect(await list('blobs/sha256')).toEqual(hex([...archives, ...manifests]));
  expect(await list('configs')).toEqual(hex(Object.keys(index.images)).map((name) => `${name}.json`));
  if (Object.keys(index.images).length === 0) expect(Object.keys(index.layers)).toEqual([]);
}

/** What a pull has in the store while it is at it. */
export async function halfDone(world: World, root: string): Promise<string[]> {
  const listed = await world.sh(`ls -A ${root}/images 2>/dev/null || true`);
  return listed.split('\n').filter((entry) => /^\.(staging|claim|index)/.test(entry));
}
