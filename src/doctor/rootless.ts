import fs from 'node:fs';
import { which } from '../host/launch.ts';
import { freeRange, rangesOf } from '../host/subids.ts';
import { userName } from '../host/user.ts';
import { namespaceObstacle } from '../host/userns.ts';
import { type Check, isRoot, missing, ok, warning } from './check.ts';
import { asRoot, installCommand } from './packages.ts';
import { textOrEmpty } from '../host/text.ts';

/**
 * What an ordinary user needs to run containers without root. For root all of that is a matter of others, and what is
 * missing no more than a warning.
 */
export async function checkRootless(): Promise<Check[]> {
  return [checkNamespaces(), ...(await checkIds()), checkUplink(), checkPorts()];
}

const absent = (name: string, found: string, remedy?: string): Check =>
  isRoot()
    ? warning(name, `${found}: users need it to run containers without root`, remedy)
    : missing(name, found, remedy);

function checkNamespaces(): Check {
  const name = 'user namespaces';
  if (!fs.existsSync('/proc/self/ns/user')) return absent(name, 'this kernel has none', 'boot a kernel that has them');
  const obstacle = namespaceObstacle((key) => textOrEmpty(`/proc/sys/${key}`).trim());
  if (obstacle === undefined) return ok(name, 'for all users');
  return absent(name, obstacle.why, asRoot(obstacle.remedy.replace(/^.*?sudo /, '')));
}

async function checkIds(): Promise<Check[]> {
  const name = 'newuidmap';
  const tool =
    which('newuidmap') === undefined || which('newgidmap') === undefined
      ? absent(name, 'not installed', installCommand('newuidmap'))
      : ok(name);
  return isRoot() ? [tool] : [tool, await checkSubordinate()];
}

async function checkSubordinate(): Promise<Check> {
  const name = 'subordinate ids';
  const [uids, gids] = [textOrEmpty('/etc/subuid'), textOrEmpty('/etc/subgid')];
  const uid = process.getuid?.() ?? 0;
  const username = (await userName(uid)) ?? String(uid);
  const user = { name: username, uid };
  const count = Math.min(
    ...[uids, gids].map((text) => rangesOf(text, user).reduce((sum, range) => sum + range.count, 0)),
  );
  if (count > 0) return ok(name, `${count} of ${username}`);
  const range = freeRange(uids, gids);
  return missing(
    name,
    `none of ${username} in /etc/subuid and /etc/subgid`,
    asRoot(`usermod --add-subuids ${range} --add-subgids ${range} ${username}`),
  );
}

function checkUplink(): Check {
  const name = 'uplink';
  const found = ['pasta', 'slirp4netns'].filter((tool) => which(tool) !== undefined);
  if (found.length === 0)
    return warning(
      name,
      'neither pasta nor slirp4netns: containers of users reach each other and nothing outside',
      installCommand('pasta'),
    );
  try {
    fs.accessSync('/dev/net/tun', fs.constants.R_OK | fs.constants.W_OK);
    if (!isRoot() || (fs.statSync('/dev/net/tun').mode & 0o006) === 0o006) return ok(name, found.join(', '));
  } catch {
    // Said below.
  }
  return warning(name, 'users may not open /dev/net/tun, which it takes', asRoot('chmod 0666 /dev/net/tun'));
}

function checkPorts(): Check {
  if (which('slirp4netns') !== undefined) return ok('slirp4netns', 'publishes ports of users');
  return warning('slirp4netns', 'not installed: users cannot publish ports (-p)', installCommand('slirp4netns'));
}
