import { expect, test } from 'bun:test';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
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

test('a name stands for the point that is called so', () => {
  expect(pass('fail:two').lines).toEqual(['on true', 'one', 'injected fault: two', 'three']);
});

/** Makes a directory and a file in it, in a process of its own; says what could not be done, and what is there. */
function write(fault: string) {
  const code = `
    import ${JSON.stringify(source)};
    import fs from 'node:fs';
    const at = fs.realpathSync('.');
    const attempt = (what, work) => { try { work(); } catch (error) { console.log(what, error.code); } };
    attempt('mkdir', () => fs.mkdirSync(at + '/a'));
    attempt('write', () => fs.writeFileSync(at + '/file', 'content'));
    attempt('rename', () => fs.renameSync(at + '/file', at + '/other'));
    attempt('proc', () => fs.writeFileSync('/proc/self/comm', 'name'));
    console.log(fs.readdirSync(at).toSorted().map((name) => name === 'a' ? name : name + '=' + fs.readFileSync(at + '/' + name)).join(' '));`;
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'fault-'));
  try {
    const { stdout } = spawnSync(process.execPath, ['-e', code], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, MINIRUN_FAULT: fault },
    });
    return stdout.trim().split('\n');
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

test('enospc:N finds the disk full once, and leaves half of what was to be written', () => {
  expect(write('enospc:1')).toEqual(['mkdir ENOSPC', 'other=content']);
  expect(write('enospc:2')).toEqual(['write ENOSPC', 'a other=con']);
  expect(write('enospc:3')).toEqual(['rename ENOSPC', 'a file=content']);
  expect(write('enospc:4')).toEqual(['a other=content']);
});

test('full:N finds it full from then on', () => {
  expect(write('full:2')).toEqual(['write ENOSPC', 'rename ENOSPC', 'a file=con']);
});

test.each([undefined, '', 'fail', 'fail:0', 'fail:4', 'kill:', 'other:1'])('%j does nothing', (fault) => {
  expect(pass(fault)).toMatchObject({ status: 0 });
  expect(pass(fault).lines.slice(1)).toEqual(['one', 'two', 'three']);
});
