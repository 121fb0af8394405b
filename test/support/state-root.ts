import { afterEach, beforeEach } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ensureStateRoot, setStateRoot, stateRoot } from '../../src/state/paths.ts';

/** Gives every test of the calling file an empty state directory of its own, in a temporary place. */
export function useStateRoot(): void {
  const former = stateRoot();
  beforeEach(() => {
    setStateRoot(fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-unit-')));
    ensureStateRoot();
  });
  afterEach(() => {
    fs.rmSync(stateRoot(), { recursive: true, force: true });
    setStateRoot(former);
  });
}
