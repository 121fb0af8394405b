import { execFileSync } from 'node:child_process';

/** Whether every test must run: a skip is then a failure. CI sets it. */
const mustRun = process.env.MINIRUN_TEST_MUST_RUN === '1';

/**
 * For `test.skipIf(…)` and `describe.skipIf(…)`: true when there is a reason to skip, which is printed.
 *
 * @throws Error under MINIRUN_TEST_MUST_RUN=1
 */
export function skipOrFail(reason: string | undefined): boolean {
  if (reason === undefined) return false;
  if (mustRun) throw new Error(`MINIRUN_TEST_MUST_RUN=1 forbids to skip: ${reason}`);
  process.stderr.write(`skipped: ${reason}\n`);
  return true;
}

/** The reason to skip when a command is not installed. */
export function missingTool(...names: readonly string[]): string | undefined {
  const missing = names.filter((name) => Bun.which(name) === null);
  return missing.length === 0 ? undefined : `${missing.join(', ')} not installed`;
}

/** The reason to skip when no world can be built here. */
export function missingWorld(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const tool = missingTool('unshare', 'nsenter', 'setpriv', 'ip', 'iptables-save', 'ip6tables-save');
  if (tool !== undefined) return tool;
  try {
    execFileSync('unshare', ['--net', '--mount', '--pid', '--fork', 'true'], { stdio: 'pipe' });
    return undefined;
  } catch (error) {
    return `no new namespaces: ${(error as Error).message.trim()}`;
  }
}
