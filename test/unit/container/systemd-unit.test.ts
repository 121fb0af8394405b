import { describe, expect, test } from 'bun:test';
import {
  checkRestartPolicy,
  checkUnitName,
  containerUnit,
  type ContainerUnit,
  execWord,
  restartUnit,
  word,
} from '../../../src/container/systemd-unit.ts';

/** The words of a line as systemd reads it: systemd.syntax(7), systemd.service(5). Specifiers and variables are put back. */
function words(line: string, isCommand: boolean): string[] {
  const found: string[] = [];
  for (const [, quoted, plain] of line.matchAll(/\s*(?:"((?:\\.|[^"\\])*)"|([^\s"]+))/gs)) {
    let text = (quoted ?? plain ?? '').replaceAll(/\\(x[0-9a-f]{2}|.)/gs, (_, escape: string) => {
      if (escape.startsWith('x')) return String.fromCharCode(Number.parseInt(escape.slice(1), 16));
      return { n: '\n', t: '\t', '\\': '\\', '"': '"' }[escape] ?? `?${escape}`;
    });
    expect(text.replaceAll('%%', '')).not.toContain('%');
    text = text.replaceAll('%%', '%');
    if (isCommand) {
      expect(text.replaceAll('$$', '')).not.toContain('$');
      text = text.replaceAll('$$', '$');
    }
    found.push(text);
  }
  return found;
}

const awkward = [
  'plain',
  'two words',
  '',
  '50%',
  '%n',
  '$HOME',
  '${x}',
  '$$',
  'a"b',
  "it's",
  'back\\slash',
  '\\n',
  'line\nbreak',
  'tab\there',
  '\u001b[0m',
  ';',
  '#x',
  'ünï',
  '~',
  '-x=y',
];

test.each(awkward)('the word %p comes back', (text) => {
  expect(words(word(text), false)).toEqual([text]);
  expect(words(execWord(text), true)).toEqual([text]);
  expect(word(text)).not.toContain('\n');
});

const about: ContainerUnit = {
  unit: 'container-web',
  container: 'web',
  binary: '/opt/my programs/minirun',
  stateRoot: '/srv/100%/mini run',
  restartPolicy: 'on-failure',
  stopTimeout: 5,
  stopSignal: 2,
  wants: ['a.service'],
  after: ['b.service'],
  requires: [],
  environment: [],
  header: true,
};
const valuesOf = (text: string, key: string) =>
  text.split('\n').flatMap((line) => (line.startsWith(`${key}=`) ? [line.slice(key.length + 1)] : []));

describe('a unit', () => {
  test('runs a container in its foreground, stops it by minirun, and ends nothing else', () => {
    const text = containerUnit(about);
    expect(valuesOf(text, 'Type')).toEqual(['exec']);
    expect(words(valuesOf(text, 'ExecStart')[0] as string, true)).toEqual([about.binary, 'start', '--attach', 'web']);
    expect(words(valuesOf(text, 'ExecStop')[0] as string, true)).toEqual([about.binary, 'stop', '-t', '5', 'web']);
    expect(valuesOf(text, 'KillMode')).toEqual(['process']);
    expect(valuesOf(text, 'SuccessExitStatus')).toEqual(['130 143']);
    expect(valuesOf(text, 'TimeoutStopSec')).toEqual(['65']);
    expect(words(valuesOf(text, 'Environment')[0] as string, false)).toEqual([`MINIRUN_ROOT=${about.stateRoot}`]);
    expect(words(valuesOf(text, 'RequiresMountsFor')[0] as string, false)).toEqual([about.stateRoot]);
    expect(valuesOf(text, 'Wants')).toEqual(['network-online.target a.service']);
    expect(valuesOf(text, 'Requires')).toEqual([]);
    expect(valuesOf(text, 'WantedBy')).toEqual(['default.target']);
  });

  test('of --new makes it from the words that were typed', () => {
    const text = containerUnit({ ...about, create: { words: [...awkward, 'busybox'], directory: '/x y/%h' } });
    expect(words(valuesOf(text, 'ExecStart')[0] as string, true)).toEqual([
      about.binary,
      'run',
      '--rm',
      '--name',
      'web',
      ...awkward,
      'busybox',
    ]);
    expect(valuesOf(text, 'WorkingDirectory')).toEqual(['/x y/%%h']);
    expect(valuesOf(text, 'ExecStartPre')[0]).toStartWith('-"/opt/my programs/minirun" rm -f web');
  });

  test('waits for ever where the container does', () => {
    expect(valuesOf(containerUnit({ ...about, stopTimeout: -1 }), 'TimeoutStopSec')).toEqual(['infinity']);
  });

  test('for all starts what is to run after a boot', () => {
    const text = restartUnit(about);
    expect(words(valuesOf(text, 'ExecStart')[0] as string, true).slice(1)).toEqual([
      'start',
      '--all',
      '--filter',
      'should-start-on-boot=true',
    ]);
  });

  test('has names and words that systemd knows', () => {
    expect(checkUnitName('container-we.b_1')).toBe('container-we.b_1');
    expect(() => checkUnitName('a/b')).toThrow('invalid unit name');
    expect(checkRestartPolicy('on-abort')).toBe('on-abort');
    expect(() => checkRestartPolicy('unless-stopped')).toThrow('systemd has no such policy');
  });
});
