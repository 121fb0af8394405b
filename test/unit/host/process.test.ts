import { afterEach, describe, expect, test } from 'bun:test';
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bootId, isAlive, processRef, selfRef, signalProcess, startTime } from '../../../src/host/process.ts';

const children: ChildProcess[] = [];
const directories: string[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const directory of directories.splice(0)) fs.rmSync(directory, { recursive: true, force: true });
});

function run(command: string, args: string[]): number {
  const child = spawn(command, args, { stdio: 'ignore' });
  children.push(child);
  return child.pid as number;
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 200 && !condition(); tries++) await Bun.sleep(10);
  expect(condition()).toBe(true);
}

describe('start time', () => {
  // The kernel prints the command's name in parentheses, unescaped.
  test.each(['plain', 'a b', ') R 1 2 3', ')) Z 0 (', '(', 'Z)'])('of a program called %j', async (name) => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-process-'));
    directories.push(directory);
    const program = path.join(directory, name);
    fs.copyFileSync('/bin/sleep', program);
    const pid = run(program, ['60']);
    await until(() => fs.readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd() === name.trimEnd());
    // The command before it in this process's life began earlier or in the same tick, and not more than minutes ago.
    const start = startTime(pid) as number;
    expect(start).toBeGreaterThanOrEqual(selfRef().start);
    expect(start - selfRef().start).toBeLessThan(100 * 600);
    expect(startTime(pid)).toBe(start);
  });

  test('none once it is gone, nor while it is a zombie', async () => {
    expect(startTime(2 ** 22 + 1)).toBeUndefined();
    // sh becomes a sleep that does not know of the child that has ended.
    const parent = run('sh', ['-c', 'true & exec sleep 60']);
    const childOf = () => fs.readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim();
    await until(() => childOf() !== '' && fs.readFileSync(`/proc/${childOf()}/stat`, 'utf8').includes(') Z '));
    expect(startTime(Number(childOf()))).toBeUndefined();
    expect(processRef(Number(childOf()))).toBeUndefined();
  });
});

describe('a reference', () => {
  test('is to that very process, not to another with its pid', () => {
    const ref = processRef(process.pid);
    expect(ref).toEqual(selfRef());
    expect(isAlive(ref)).toBe(true);
    expect(isAlive({ pid: process.pid, start: selfRef().start + 1 })).toBe(false);
    expect(isAlive(undefined)).toBe(false);
  });

  test('signals reach only that very process', async () => {
    const ref = processRef(run('sleep', ['60']));
    if (ref === undefined) throw new Error('sleep has ended');
    expect(signalProcess({ ...ref, start: ref.start + 1 }, 'SIGKILL')).toBe(false);
    expect(isAlive(ref)).toBe(true);
    expect(signalProcess(ref, 'SIGKILL')).toBe(true);
    await until(() => !isAlive(ref));
    expect(signalProcess(ref, 'SIGKILL')).toBe(false);
    expect(signalProcess(undefined, 'SIGKILL')).toBe(false);
  });
});

test('the boot has an id', () => {
  expect(bootId()).toMatch(/^[0-9a-f-]{36}$/);
});
