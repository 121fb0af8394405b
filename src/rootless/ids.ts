import { MinirunError } from '../errors.ts';
import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { freeRange, mappingArguments, planMapping, rangesOf, type SubordinateRange } from '../host/subids.ts';
import { userName } from '../host/user.ts';
import { textOrEmpty } from '../host/text.ts';

/** Arguments of newuidmap(1) and newgidmap(1) behind the pid. */
export interface Mappings {
  uids: string[];
  gids: string[];
}

/** The user who runs this. @throws MinirunError when the machine does not know him */
export async function currentUser(): Promise<{ uid: number; gid: number; name: string }> {
  const [uid = 0, gid = 0] = [process.getuid?.(), process.getgid?.()];
  const name = await userName(uid);
  if (name !== undefined) return { uid, gid, name };
  throw new MinirunError(
    'cannot run without root',
    `user ${uid} is not in /etc/passwd`,
    'Run it as a user with a name, or as root',
    { code: 125 },
  );
}

/** What ids the user has. @throws MinirunError that tells what is missing and who adds it */
export async function readMappings(user: { uid: number; gid: number; name: string }): Promise<Mappings> {
  if (which('newuidmap') === undefined || which('newgidmap') === undefined) {
    throw new MinirunError(
      'cannot run without root',
      'this machine has no newuidmap, which gives a user the ids that containers need',
      'Install it as root: apt-get install uidmap (elsewhere it is part of shadow-utils or shadow)',
      { code: 125 },
    );
  }
  const [uids, gids] = [await rangesFor(user, 'uid'), await rangesFor(user, 'gid')];
  if (uids.length === 0 || gids.length === 0) throw withoutIds(user.name, uids.length === 0, gids.length === 0);
  return {
    uids: mappingArguments(planMapping(user.uid, uids)),
    gids: mappingArguments(planMapping(user.gid, gids)),
  };
}

/** From the file, else from whatever the name service switch has (getsubids(1) of shadow 4.9). */
async function rangesFor(user: { uid: number; name: string }, kind: 'uid' | 'gid'): Promise<SubordinateRange[]> {
  const own = rangesOf(textOrEmpty(`/etc/sub${kind}`), user);
  if (own.length > 0 || which('getsubids') === undefined) return own;
  const { stdout } = await runTool('getsubids', [...(kind === 'gid' ? ['-g'] : []), user.name]);
  return [...stdout.matchAll(/^\d+: \S+ (\d+) (\d+)$/gm)].map(([, start, count]) => ({
    start: Number(start),
    count: Number(count),
  }));
}

function withoutIds(name: string, noUids: boolean, noGids: boolean): MinirunError {
  const range = freeRange(textOrEmpty('/etc/subuid'), textOrEmpty('/etc/subgid'));
  const files = [noUids ? '/etc/subuid' : '', noGids ? '/etc/subgid' : ''].filter(Boolean).join(' and ');
  const options = [noUids ? `--add-subuids ${range}` : '', noGids ? `--add-subgids ${range}` : ''].filter(Boolean);
  return new MinirunError(
    'cannot run without root',
    `user ${name} has no ids for containers in ${files}`,
    `Add some: sudo usermod ${options.join(' ')} ${name}`,
    { code: 125 },
  );
}

/** What newuidmap or newgidmap has said, for the user. */
export function refusedMapping(tool: 'newuidmap' | 'newgidmap', stderr: string): MinirunError {
  const why = stderr.trim().split('\n').at(-1) || 'it gave no reason';
  return new MinirunError(
    `cannot give the user namespace its ids (${tool})`,
    why.replace(/^new[ug]idmap: /, ''),
    /Operation not permitted/.test(why)
      ? `${which(tool)} must be setuid root or have its file capability, and no_new_privs must not be set`
      : `Compare ${tool === 'newuidmap' ? '/etc/subuid' : '/etc/subgid'} with what others use`,
    { code: 125 },
  );
}
