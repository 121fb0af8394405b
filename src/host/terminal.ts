import { spawnSync } from 'node:child_process';
import { toolPath } from './exec.ts';

/** The settings of the terminal on standard input as `stty` takes them back; undefined where there is no stty. */
export function terminalSettings(): string | undefined {
  const { status, stdout } = spawnSync('stty', ['-g'], {
    stdio: ['inherit', 'pipe', 'ignore'],
    env: { PATH: toolPath },
  });
  return status === 0 ? stdout.toString().trim() : undefined;
}
