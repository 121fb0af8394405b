import { spawn } from 'node:child_process';
import { missingTool, type ToolResult, toolPath } from './exec.ts';
import { ownMark } from './process.ts';

/** The exit code that stands for a tool that was ended by a signal. */
export const killedCode = 128;

/**
 * Runs a host tool to its end, whatever its exit code: `runTool` for the path that every `run` and `rm` takes.
 * execa costs 10 ms to load and 3 ms a call here, a third of the whole `run`; this costs 1.6 ms (docs/adr/0002).
 *
 * @throws MinirunError when the tool is missing
 */
export function runDirectly(tool: string, args: readonly string[], input = ''): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(tool, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: toolPath, LC_ALL: 'C', ...ownMark() },
    });
    const output: Buffer[] = [];
    const errors: Buffer[] = [];
    child.on('error', (error) =>
      reject((error as NodeJS.ErrnoException).code === 'ENOENT' ? missingTool(tool) : error),
    );
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
    // A tool that ends before it has read everything says why by its exit code.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    child.on('close', (code) => {
      resolve({
        exitCode: code ?? killedCode,
        stdout: Buffer.concat(output).toString(),
        stderr: Buffer.concat(errors).toString(),
      });
    });
  });
}
