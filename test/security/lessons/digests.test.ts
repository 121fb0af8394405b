import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { layoutOf, tarOf } from '../../support/oci-layout.ts';
import { missingWorld, skipOrFail } from '../../support/skip.ts';
import { createWorld, type World } from '../../support/world.ts';

// What a manifest calls a digest became part of a path and of a URL before anybody had looked at it.
describe.skipIf(skipOrFail(missingWorld()))('CVE-2024-3727: digests are validated before they become paths', () => {
  let world: World;

  beforeAll(async () => {
    world = await createWorld();
  });
  afterAll(async () => {
    await world.destroy();
  });

  /** An image as `load` takes it, whose descriptors have been changed. */
  const archive = (change: (text: string) => string): string => {
    const files = layoutOf([
      { layers: [tarOf([{ path: 'file', content: 'x' }])], config: { Cmd: ['true'] }, name: 'evil:1' },
    ]);
    const index = files.get('index.json') as Buffer;
    files.set('index.json', Buffer.from(change(index.toString())));
    const file = path.join(world.directory, 'evil.tar');
    fs.writeFileSync(file, tarOf([...files].map(([name, content]) => ({ path: name, content }))));
    return file;
  };

  const digest = /sha256:[0-9a-f]{64}/;
  test.each([
    ['upwards', (text: string) => text.replace(digest, 'sha256:../../../../../../etc/passwd')],
    ['an algorithm that is a path', (text: string) => text.replace(digest, `../../sha256:${'a'.repeat(64)}`)],
    ['no algorithm', (text: string) => text.replace(digest, 'a'.repeat(64))],
    ['too short', (text: string) => text.replace(digest, 'sha256:abcd')],
    [
      'capital letters',
      (text: string) => text.replace(digest, (whole) => `sha256:${whole.slice(7).toUpperCase().replace(/\d/g, 'A')}`),
    ],
    ['empty', (text: string) => text.replace(digest, '')],
    ['of another algorithm', (text: string) => text.replace(digest, `md5:${'a'.repeat(32)}`)],
  ])('%s', async (_, change) => {
    const { code, stderr } = await world.run(['load', '-q', '-i', archive(change)]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/digest/i);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).not.toContain('root:');
    expect((await world.run(['images', '-q'])).stdout).toBe('');
  });

  test('one that is right but not that of the data', async () => {
    const other = `sha256:${'0123456789abcdef'.repeat(4)}`;
    const { code, stderr } = await world.run(['load', '-q', '-i', archive((text) => text.replace(digest, other))]);
    expect(code).toBe(1);
    expect(stderr).not.toBe('');
    expect((await world.run(['images', '-q'])).stdout).toBe('');
  });

  test.each(['busybox@sha256:../../etc/passwd', 'busybox@../x:y', 'x@sha256:abc'])(
    'a reference %j',
    async (reference) => {
      const { code, stderr } = await world.run(['pull', '-q', reference]);
      expect(code).not.toBe(0);
      expect(stderr.trim().split('\n')).toHaveLength(1);
    },
  );
});
