import { expect, test } from 'bun:test';
import { spawnSync } from 'node:child_process';
import path from 'node:path';

const source = path.resolve(import.meta.dir, '../../../src/host/fault.ts');

/** Passes three fault points in a process of its own. */
function pass(fault: string | undefined) {
  const code = `
    import { faultPoint, faultsOn } from ${JSON.stringify(source)};
    console.log('on', faultsOn);
    for (const name of ['one', 'two', 'three']) {
      try { faultPoint(name); console.log(name); } catch (error) { console.log(error.message); }
    }`;
  const { stdout, status, signal } = spawnSync(process.execPath, ['-e', code], {
    encoding: 'utf8',
    env: { ...process.env, MINIRUN_FAULT: fault },
  });
  return { lines: stdout.trim().split('\n'), status, signal };
}

test('fail:N fails once, at the Nth point', () => {
  expect(pass('fail:2').lines).toEqual(['on true', 'one', 'injected fault: two', 'three']);
});

test('kill:N ends the process there, with nothing cleaned up', () => {
  expect(pass('kill:3')).toMatchObject({ lines: ['on true', 'one', 'two'], signal: 'SIGKILL' });
});

test.each([undefined, '', 'fail', 'fail:0', 'fail:4', 'kill:', 'other:1'])('%j does nothing', (fault) => {
  expect(pass(fault)).toMatchObject({ status: 0 });
  expect(pass(fault).lines.slice(1)).toEqual(['one', 'two', 'three']);
});
