import { describe, expect, spyOn, test } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { readJson, writeJson } from '../../../src/state/json.ts';
import { stateRoot } from '../../../src/state/paths.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const file = () => path.join(stateRoot(), 'networks', 'lab.json');

describe('reading', () => {
  test('a file that is not there, and one that is damaged', () => {
    expect(readJson(file())).toBeUndefined();
    fs.writeFileSync(file(), '{"half":');
    expect(() => readJson(file())).toThrow(SyntaxError);
  });

  test('what cannot be read is not taken for missing', () => {
    expect(() => readJson(path.dirname(file()))).toThrow(/EISDIR/);
  });
});

describe('writing', () => {
  test.each([true, false])('comes back, for this user only; durable: %s', (durable) => {
    writeJson(file(), { a: [1, 'ü', null] }, { durable });
    writeJson(file(), { a: [2] }, { durable });
    expect(readJson<unknown>(file())).toEqual({ a: [2] });
    expect(fs.statSync(file()).mode & 0o777).toBe(0o600);
    expect(fs.readdirSync(path.dirname(file()))).toEqual(['lab.json']);
  });

  test('a reader that has the old file open keeps the old content', () => {
    writeJson(file(), 'old');
    const fd = fs.openSync(file(), 'r');
    writeJson(file(), 'a new and longer one');
    expect(fs.readFileSync(fd, 'utf8')).toBe('"old"\n');
    fs.closeSync(fd);
    expect(readJson<string>(file())).toBe('a new and longer one');
  });

  test('a write that fails leaves the old content, and nothing else', () => {
    writeJson(file(), 'old');
    const spy = spyOn(fs, 'writeFileSync').mockImplementation((fd) => {
      fs.writeSync(fd as number, '"ne');
      throw new Error('ENOSPC');
    });
    expect(() => writeJson(file(), 'new')).toThrow('ENOSPC');
    spy.mockRestore();
    expect(readJson<string>(file())).toBe('old');
    expect(fs.readdirSync(path.dirname(file()))).toEqual(['lab.json']);
  });

  test('is on disk before it takes the old one’s place', () => {
    const order: string[] = [];
    const [sync, rename] = [fs.fsyncSync, fs.renameSync];
    const spies = [
      spyOn(fs, 'fsyncSync').mockImplementation((fd) => {
        order.push('fsync');
        sync(fd);
      }),
      spyOn(fs, 'renameSync').mockImplementation((from, to) => {
        order.push('rename');
        rename(from, to);
      }),
    ];
    writeJson(file(), 'x');
    writeJson(file(), 'x', { durable: false });
    for (const spy of spies) spy.mockRestore();
    expect(order).toEqual(['fsync', 'rename', 'rename']);
  });
});
