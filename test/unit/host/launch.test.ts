import { expect, test } from 'bun:test';
import fs from 'node:fs';
import { ownBinary } from '../../../src/host/launch.ts';

test('run from its sources, nothing is taken for the compiled binary: "bun init" would make a project', () => {
  expect(ownBinary).not.toBe(process.execPath);
  expect(fs.existsSync(ownBinary)).toBe(false);
});
