import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { commandText } from '../../../src/host/executor.ts';
import { type HostCommand, ip, ipIn, iptables, type Step } from '../../../src/host/steps.ts';
import { withFakeTools } from '../../support/fake-tools.ts';

let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-executor-'));
});

afterEach(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

const step = (id: string, apply: HostCommand[], undo: HostCommand[] = []): Step => ({ id, why: '', apply, undo });
/** A step that makes a thing in the world of the fakes, on the host or in a namespace. */
const thing = (name: string, netns?: string): Step =>
  step(name, [{ ...ip('add', name), netns }], [{ ...ip('del', name), netns }]);
const rule = (name: string, table: 'filter' | 'nat' = 'filter'): Step =>
  step(name, [iptables(table, '-A', name)], [iptables(table, '-D', name)]);
const folder = (name: string): Step => {
  const place = path.join(directory, 'world', name);
  return step(name, [{ tool: 'mkdir', path: place, mode: 0o700 }], [{ tool: 'remove', path: place }]);
};
const apply = (steps: Step[], fault?: string) => withFakeTools(directory, 'applySteps', steps, { fault });
const undo = (steps: Step[]) => withFakeTools(directory, 'undoSteps', steps);

describe('applying', () => {
  test('one ip process for each run of one namespace, one iptables-restore for all rules', () => {
    const { calls, errors } = apply([
      thing('a'),
      rule('r1', 'nat'),
      thing('b'),
      thing('c', 'web'),
      rule('r2'),
      rule('r3', 'nat'),
      thing('d', 'web'),
    ]);
    expect(errors).toEqual([]);
    expect(calls.filter(({ tool }) => tool === 'ip')).toEqual([
      { tool: 'ip', args: '-batch -', input: ['add a', 'add b'] },
      { tool: 'ip', args: '-n web -batch -', input: ['add c', 'add d'] },
    ]);
    const firewall = calls.filter(({ tool }) => tool !== 'ip');
    expect(firewall).toEqual([
      {
        tool: 'iptables-restore',
        args: '--noflush -w',
        input: ['*nat', '-A r1', '-A r3', 'COMMIT', '*filter', '-A r2', 'COMMIT'],
      },
    ]);
  });

  test('what comes in between keeps its place', () => {
    const { calls } = apply([thing('a'), folder('f'), thing('b'), thing('c', 'web'), thing('d')]);
    expect(calls.map(({ input }) => input)).toEqual([['add a'], ['add b'], ['add c'], ['add d']]);
  });

  test('nothing to do starts no process', () => {
    expect(apply([step('none', [])]).calls).toEqual([]);
  });

  test('words with blanks stay one word', () => {
    const { calls } = apply([
      step('odd', [
        ip('link', 'set', 'a', 'alias', "it's # two"),
        iptables('filter', '-A', 'c', '--comment', 'two words'),
      ]),
    ]);
    expect(calls.flatMap(({ input }) => input)).toEqual(
      expect.arrayContaining(['link set a alias "it\'s # two"', '-A c --comment "two words"']),
    );
  });

  test('files and folders', () => {
    const file = path.join(directory, 'a/b/file');
    const { errors } = apply([
      step('folder', [{ tool: 'mkdir', path: path.dirname(file), mode: 0o700 }]),
      step('file', [{ tool: 'file', path: file, content: 'text\n', mode: 0o640 }]),
    ]);
    expect(errors).toEqual([]);
    expect(fs.readFileSync(file, 'utf8')).toBe('text\n');
    expect([fs.statSync(file).mode & 0o777, fs.statSync(path.dirname(file)).mode & 0o777]).toEqual([0o640, 0o700]);
    expect(undo([step('file', [], [{ tool: 'remove', path: path.join(directory, 'a') }])]).errors).toEqual([]);
    expect(fs.existsSync(path.join(directory, 'a'))).toBe(false);
  });
});

describe('a failure', () => {
  test('at line N of a batch undoes exactly what came before, newest first', () => {
    const { calls, errors, present } = apply([thing('a'), thing('b'), thing('broken'), thing('c')]);
    expect(errors).toEqual(['cannot configure the network (step broken: ip add broken): Device or resource busy']);
    expect(calls.at(-1)).toEqual({ tool: 'ip', args: '-force -batch -', input: ['del b', 'del a'] });
    expect(present).toEqual([]);
  });

  test('in the middle of a step undoes that step too', () => {
    const half = step('half', [ip('add', 'a'), ip('add', 'broken')], [ip('del', 'a')]);
    const { calls, present } = apply([half]);
    expect(calls.at(-1)?.input).toEqual(['del a']);
    expect(present).toEqual([]);
  });

  test('leaves what was not reached alone: it may be of somebody else', () => {
    fs.mkdirSync(path.join(directory, 'world'));
    fs.writeFileSync(path.join(directory, 'world', 'foreign'), '');
    const skipped = step('skipped', [], [ip('del', 'foreign')]);
    const { present } = apply([thing('a'), skipped, thing('broken'), thing('foreign')]);
    expect(present).toEqual(['foreign']);
  });

  test('of the firewall undoes the links too, and of the links the firewall', () => {
    expect(apply([thing('a'), rule('broken'), rule('r')])).toMatchObject({ present: [] });
    const { errors, present } = apply([rule('r'), thing('a', 'web'), thing('broken', 'web')]);
    expect(errors).toHaveLength(1);
    expect(present).toEqual([]);
  });

  test('of an ip that is killed: what it had come to is undone, and that it was killed is told', () => {
    const { errors, present } = apply([thing('a'), thing('killed')]);
    expect(errors[0]).toContain('ip was killed');
    expect(present).toEqual([]);
  });

  test('of the undo too: every error is told, and the rest is undone', () => {
    const stuck = (name: string) => step(name, [ip('add', name)], [ip('del', `broken-${name}`)]);
    const { errors, present } = apply([thing('a'), stuck('s'), thing('b', 'web'), stuck('t'), thing('broken')]);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toContain('step broken');
    expect(errors[0]?.match(/cannot remove network parts/g)).toHaveLength(2);
    // What could not be taken back stays, and nothing else.
    expect(present).toEqual(['s', 't']);
  });

  test('of a bridge that has all its ports is said as such', () => {
    expect(apply([thing('full')]).errors).toEqual([expect.stringContaining('a Linux bridge takes 1023 ports')]);
  });
});

describe('an injected failure', () => {
  const plan = () => [folder('f'), thing('a'), rule('r1'), thing('b', 'web'), rule('r2', 'nat'), thing('c', 'web')];

  test.each([1, 2, 3, 4, 5, 6])('after step %d leaves nothing', (count) => {
    const { errors, present, calls } = apply(plan(), `fail:${count}`);
    expect(errors).toEqual([`injected fault: ${plan()[count - 1]?.id}`]);
    expect(present).toEqual([]);
    const made = calls.flatMap(({ input }) => input).filter((line) => /^(add|-A)/.test(line));
    const expected = plan().slice(1, count);
    expect(made).toHaveLength(expected.length);
  });

  test('after the last step there is none', () => {
    const { errors, present } = apply(plan(), 'fail:7');
    expect(errors).toEqual([]);
    expect(present).toEqual(['a', 'b', 'c', 'f', 'r1', 'r2']);
  });
});

describe('undoing', () => {
  test('newest first, in as few processes as applying', () => {
    const steps = [thing('a'), rule('r1'), thing('b'), thing('c', 'web'), rule('r2')];
    apply(steps);
    const { calls, errors, present } = undo(steps);
    expect(errors).toEqual([]);
    expect(present).toEqual([]);
    expect(calls.filter(({ tool }) => tool === 'ip')).toEqual([
      { tool: 'ip', args: '-n web -force -batch -', input: ['del c'] },
      { tool: 'ip', args: '-force -batch -', input: ['del b', 'del a'] },
    ]);
    expect(calls.filter(({ tool }) => tool !== 'ip').map(({ input }) => input)).toEqual([
      ['*filter', '-D r2', '-D r1', 'COMMIT'],
    ]);
  });

  test('what is gone already is no error, and does not keep the rest', () => {
    const steps = [thing('a'), thing('b'), rule('r1'), rule('missing')];
    apply([thing('a'), rule('r1')]);
    const { calls, errors, present } = undo(steps);
    expect(errors).toEqual([]);
    expect(present).toEqual([]);
    // One transaction does not go through then, so it is rule by rule.
    expect(calls.filter(({ tool }) => tool === 'iptables').map(({ args }) => args)).toEqual([
      '-w -t filter -D missing',
      '-w -t filter -D r1',
    ]);
    expect(undo(steps)).toMatchObject({ errors: [], present: [] });
  });

  test('goes on after every error and returns them all', () => {
    apply([thing('a'), thing('b', 'web'), rule('r')]);
    const { errors, present } = undo([
      thing('a'),
      thing('broken1'),
      rule('r'),
      rule('broken2'),
      thing('b', 'web'),
      thing('broken3', 'web'),
    ]);
    expect(errors).toHaveLength(3);
    expect(errors.filter((message) => message.includes('Device or resource busy'))).toHaveLength(3);
    expect(present).toEqual([]);
  });

  test('goes on after a file that cannot be written', () => {
    apply([thing('a')]);
    const file = path.join(directory, 'none/file');
    const { errors, present } = undo([
      thing('a'),
      step('file', [], [{ tool: 'file', path: file, content: '', mode: 0o600 }]),
    ]);
    expect(errors).toEqual([expect.stringContaining('ENOENT')]);
    expect(present).toEqual([]);
  });
});

test.each([
  [ip('link', 'del', 'a'), 'ip link del a'],
  [ipIn('web', 'addr', 'show'), 'ip -n web addr show'],
  [iptables('nat', '-A', 'c', '--comment', 'two words'), 'iptables -w -t nat -A c --comment "two words"'],
  [{ tool: 'sysctl', key: 'net.ipv4.ip_forward', value: '1' }, 'sysctl -qw net.ipv4.ip_forward=1'],
] as const)('a command as a person types it: %#', (command, text) => {
  expect(commandText(command as HostCommand)).toBe(text);
});
