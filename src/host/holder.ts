import { spawn } from 'node:child_process';
import { MinirunError, messageOf } from '../errors.ts';
import { missingTool, toolPath } from './exec.ts';

/** A process that does nothing but keep namespaces alive. It ends with this process, however that ends. */
export interface Holder {
  pid: number;
  end(): void;
}

/**
 * Starts `argv`, a command that makes namespaces and runs `cat` in them, and waits until `cat` runs. The other end of its
 * standard input is here: when this process is killed, `cat` reads the end of its input and ends, too.
 *
 * @throws MinirunError when it ends before
 */
export function hold(argv: readonly string[]): Promise<Holder> {
  const [command = '', ...args] = argv;
  const child = spawn(command, args, { stdio: 'pipe', detached: true, env: { PATH: toolPath, LC_ALL: 'C' }, cwd: '/' });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  child.stdin.on('error', () => {});
  child.stdin.write('\n');
  return new Promise((resolve, reject) => {
    child.on('error', (error) =>
      reject((error as NodeJS.ErrnoException).code === 'ENOENT' ? missingTool(command) : error),
    );
    child.on('close', () => {
      const why = complaint.trim().split('\n').at(-1);
      reject(new MinirunError('cannot make a user namespace', why || `${command} ended`, remedyFor(complaint)));
    });
    child.stdout.once('data', () => {
      // Nobody waits for its end: this process must be able to end first.
      child.unref();
      resolve({ pid: child.pid as number, end: () => child.stdin.destroy() });
    });
  });
}

function remedyFor(complaint: string): string | undefined {
  return /No space left|Invalid argument|Operation not permitted/.test(messageOf(new Error(complaint)))
    ? 'See /proc/sys/user/max_user_namespaces, and minirun doctor; --userns=host does without'
    : undefined;
}
