import { expect, test } from 'bun:test';
import { spawnSync } from 'node:child_process';
import type { ProcessRef } from '../../../src/host/process.ts';
import { finishInterrupted, finishInterruptedChanges } from '../../../src/network/manage.ts';
import { defineNetwork, readNetwork, writeNetwork } from '../../../src/network/store.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

/** A process that has ended. */
const ended: ProcessRef = { pid: spawnSync('true').pid, start: 1 };
const network = (transient?: ProcessRef) => ({ ...defineNetwork('lab', { subnets: [] }), transient });

test('a network whose maker was killed goes', async () => {
  writeNetwork(network(ended));
  await finishInterruptedChanges();
  expect(readNetwork('lab')).toBeUndefined();
});

// Whoever looked saw it being made; then its maker finished and ended, before he looked whether that is alive.
test('a network whose maker has finished meanwhile stays', async () => {
  writeNetwork(network());
  await finishInterrupted('lab', ended);
  expect(readNetwork('lab')).toBeDefined();
});

test('a network that somebody else makes meanwhile stays', async () => {
  writeNetwork(network({ pid: process.pid, start: 2 }));
  await finishInterrupted('lab', ended);
  expect(readNetwork('lab')).toBeDefined();
});

test('a network whose remover has finished meanwhile is no error', async () => {
  await finishInterrupted('lab', ended);
  expect(readNetwork('lab')).toBeUndefined();
});
