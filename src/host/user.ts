import fs from 'node:fs';
import { runTool } from './exec.ts';
import { which } from './launch.ts';

/**
 * The login name of a user; undefined when the machine does not know him. Not by the environment, which may still name
 * somebody else (and which Bun's `os.userInfo` goes by).
 */
export async function userName(uid: number): Promise<string | undefined> {
  let passwd = '';
  try {
    passwd = fs.readFileSync('/etc/passwd', 'utf8');
  } catch {
    // The name service may know.
  }
  const name = nameOf(uid, passwd);
  if (name !== undefined || which('getent') === undefined) return name;
  return nameOf(uid, (await runTool('getent', ['passwd', String(uid)])).stdout);
}

/** In lines of passwd(5). */
function nameOf(uid: number, passwd: string): string | undefined {
  return passwd
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields[2] === String(uid))?.[0];
}
