import { spawn } from 'node:child_process';
import { pipeline, Readable } from 'node:stream';
import { MinirunError } from '../errors.ts';
import { missingTool, toolPath } from './exec.ts';
import { which } from './launch.ts';

/**
 * What a host tool makes of a stream. Reading it fails when the tool fails, also at the end: a filter that was cut off
 * must not look like the end of its data.
 */
export function filterThrough(tool: string, args: readonly string[], source: Readable): Readable {
  const file = which(tool);
  if (file === undefined) throw missingTool(tool);
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: toolPath, LC_ALL: 'C' }, cwd: '/' });
  let diagnostics = '';
  child.stderr.on('data', (chunk: Buffer) => {
    diagnostics += chunk.toString();
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve();
      else reject(new MinirunError(`${tool} failed`, diagnostics.trim().split('\n')[0] || `exit code ${code}`));
    });
  });
  ended.catch(() => {});
  // Its failure ends the tool's input, of which the tool then complains; a tool that ends early is seen by its code.
  let sourceError: Error | undefined;
  pipeline(source, child.stdin, (error) => {
    if (error && source.errored) sourceError = error;
  });
  return Readable.from(
    (async function* output() {
      try {
        yield* child.stdout as AsyncIterable<Buffer>;
        await ended.catch((error: unknown) => {
          throw sourceError ?? error;
        });
      } finally {
        child.kill('SIGKILL');
      }
    })(),
    { objectMode: false },
  );
}
