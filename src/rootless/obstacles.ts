import { MinirunError } from '../errors.ts';
import { namespaceObstacle } from '../host/userns.ts';
import { textOrEmpty } from '../host/text.ts';

/** Why there is no user namespace, or one in which nothing may be done. @param complaint what the tools have said */
export function refusedNamespaces(complaint: string): MinirunError {
  const obstacle = namespaceObstacle((key) => textOrEmpty(`/proc/sys/${key}`).trim());
  const said = complaint.trim().split('\n').at(-1) ?? '';
  return new MinirunError(
    'cannot run without root',
    obstacle?.why ?? (said === '' ? 'the kernel makes no user namespace' : said),
    obstacle?.remedy ?? 'Run minirun doctor to see what this machine lacks, or run it with sudo',
    { code: 125 },
  );
}
