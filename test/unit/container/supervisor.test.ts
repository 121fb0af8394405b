import { describe, expect, spyOn, test } from 'bun:test';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { Definition } from '../../../src/container/definition.ts';
import { streamEnd } from '../../../src/container/logger.ts';
import { containerFiles } from '../../../src/container/store.ts';
import { loggerPipes, supervisorArgv } from '../../../src/container/supervisor.ts';
import { setStateRoot, stateRoot } from '../../../src/state/paths.ts';
import { ownBinary } from '../../../src/host/launch.ts';
import { missingTool, skipOrFail } from '../../support/skip.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const id = 'c0ffee'.padEnd(64, '0');
const definition = (tty: boolean, openStdin: boolean) => ({ id, tty, openStdin }) as Definition;
const noLogger = skipOrFail(missingTool('s6-log'));

/** The supervisor on a machine that has no logger. */
function withoutLogger<T>(use: () => T): T {
  const access = fs.accessSync;
  const spy = spyOn(fs, 'accessSync').mockImplementation((file, mode) => {
    if (String(file).endsWith('/s6-log')) throw new Error('ENOENT');
    access(file, mode);
  });
  try {
    return use();
  } finally {
    spy.mockRestore();
  }
}

/** Runs a supervisor whose container is a shell command and whose minirun writes down how it was called. */
async function supervise(argv: readonly string[], command: string): Promise<{ exit: string; reaped: string }> {
  const directory = containerFiles(id).directory;
  const reaper = path.join(stateRoot(), 'mini run');
  fs.writeFileSync(reaper, '#!/bin/sh\necho "$MINIRUN_ROOT" "$@" >"$MINIRUN_ROOT/reaped"\n', { mode: 0o755 });
  // sh -c SCRIPT NAME DIRECTORY ID BINARY ROOT COMMAND…
  const head = argv.slice(0, 6);
  const [, ...args] = [...head, reaper, stateRoot(), 'sh', '-c', command];
  const pipes = await loggerPipes();
  const stdio = ['ignore', 'pipe', 'pipe', 'ignore', ...pipes] as const;
  const run = spawn('sh', args, { stdio: [...stdio], timeout: 10_000 });
  for (const fd of pipes) fs.closeSync(fd);
  let stderr = '';
  run.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const status = await new Promise((resolve) => run.on('close', resolve));
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const read = (file: string) => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trim() : '');
  return { exit: read(path.join(directory, 'exit')), reaped: read(path.join(stateRoot(), 'reaped')) };
}

const variants = [
  { name: 'pipes', build: () => supervisorArgv(definition(false, false)) },
  { name: 'pipes with an open stdin', build: () => supervisorArgv(definition(false, true)) },
  { name: 'a plain file', build: () => withoutLogger(() => supervisorArgv(definition(false, false))) },
  {
    name: 'a plain file with an open stdin',
    build: () => withoutLogger(() => supervisorArgv(definition(false, true))),
  },
  { name: 'a terminal', build: () => supervisorArgv(definition(true, true)) },
];

describe.each(variants)('with $name', ({ build }) => {
  test('the script is valid in sh', () => {
    const { argv } = build();
    expect(argv.slice(0, 2)).toEqual(['sh', '-c']);
    expect(spawnSync('sh', ['-n', '-c', argv[2] as string], { encoding: 'utf8' })).toMatchObject({
      status: 0,
      stderr: '',
    });
  });

  test('is told folder, id, binary, state directory and then the command, as words', () => {
    const { directory } = containerFiles(id);
    const { argv } = build();
    expect(argv.slice(4, 8)).toEqual([directory, id, ownBinary, stateRoot()]);
    expect(argv.slice(8, 9)).toEqual(['unshare']);
    expect(argv.slice(-2)).toEqual([ownBinary, 'init']);
  });

  test.skipIf(noLogger)('writes the exit code down and calls minirun, whatever signal it gets meanwhile', async () => {
    fs.mkdirSync(containerFiles(id).directory);
    const { exit, reaped } = await supervise(
      build().argv,
      'kill -TERM $PPID; kill -HUP $PPID; kill -INT $PPID; exit 32',
    );
    expect(exit).toBe('32');
    expect(reaped).toBe(`${stateRoot()} reap ${id}`);
  });

  test('does not bring the folder back of a container that was refused and deleted before it got its turn', () => {
    const [shell, ...args] = [...build().argv.slice(0, 6), 'true', stateRoot(), 'sh', '-c', ':'];
    expect(spawnSync(shell, args, { encoding: 'utf8', timeout: 10_000 }).error).toBeUndefined();
    expect(fs.existsSync(containerFiles(id).directory)).toBe(false);
  });

  test.skipIf(noLogger)('leaves the rest to whoever is removing the container', async () => {
    fs.mkdirSync(containerFiles(id).directory);
    fs.writeFileSync(containerFiles(id).removing, '');
    expect(await supervise(build().argv, 'kill -9 $$')).toEqual({ exit: '137', reaped: '' });
  });
});

describe('streams', () => {
  const logged = (file: string) => fs.readFileSync(path.join(containerFiles(id).log, file), 'utf8');

  test.skipIf(noLogger)('each in a log of its own with its end marked', async () => {
    fs.mkdirSync(containerFiles(id).directory);
    await supervise(supervisorArgv(definition(false, false)).argv, 'echo out >&6; printf err >&7');
    expect(logged('stdout/current')).toMatch(/^@[0-9a-f]{24} out\n@[0-9a-f]{24} /);
    expect(logged('stdout/current').endsWith(`${streamEnd}\n`)).toBe(true);
    expect(logged('stderr/current').endsWith(`err${streamEnd}\n`)).toBe(true);
  });

  test.skipIf(noLogger)('odd letters in the path of the state directory', async () => {
    setStateRoot(path.join(stateRoot(), `it's $HOME & "more"`));
    fs.mkdirSync(containerFiles(id).directory, { recursive: true });
    await supervise(supervisorArgv(definition(false, false)).argv, 'echo out >&6');
    expect(logged('stdout/current')).toContain(' out\n');
  });

  test('both in one file, byte for byte, where there is no logger', async () => {
    fs.mkdirSync(containerFiles(id).directory);
    const { argv } = withoutLogger(() => supervisorArgv(definition(false, false)));
    await supervise(argv, 'printf "a\\0b" >&6; echo err >&7');
    expect(logged('plain')).toBe('a\0berr\n');
  });

  test('stdin is left to init, or open and silent', async () => {
    fs.mkdirSync(containerFiles(id).directory);
    const exitOf = async (openStdin: boolean, command: string) => {
      const { argv } = withoutLogger(() => supervisorArgv(definition(false, openStdin)));
      return (await supervise(argv, command)).exit;
    };
    expect(await exitOf(false, 'true <&8')).not.toBe('0');
    expect(supervisorArgv(definition(false, false)).stdio).toMatchObject({ stdin: 'null' });
    // Whoever writes to it is read; nobody's end of input closes it.
    expect(await exitOf(true, 'echo hi >&8; read line <&8; [ "$line" = hi ] && exit 5')).toBe('5');
    const left = fs.readdirSync(containerFiles(id).directory, { withFileTypes: true });
    expect(left.filter((entry) => entry.isFIFO())).toEqual([]);
  });
});
