import { messageOf } from '../errors.ts';
import { type Check, warning } from './check.ts';
import { checkDevices, checkKernel, checkRoot } from './kernel.ts';
import { checkNetwork } from './network.ts';
import { checkRootless } from './rootless.ts';
import { checkState } from './state.ts';
import { checkTools } from './tools.ts';

export type { Check } from './check.ts';

/** Looks at everything that containers need of this machine, and changes nothing of it. */
export async function diagnose(): Promise<Check[]> {
  const groups: [name: string, run: () => Check[] | Promise<Check[]>][] = [
    ['root', () => [checkRoot()]],
    ['kernel', checkKernel],
    ['devices', checkDevices],
    ['tools', checkTools],
    ['network', checkNetwork],
    ['rootless', checkRootless],
    ['state', checkState],
  ];
  const results = groups.map(async ([name, run]) => {
    try {
      return await run();
    } catch (error) {
      // One look that fails must not hide what the others have seen.
      return [warning(name, `cannot be checked: ${messageOf(error)}`)];
    }
  });
  return (await Promise.all(results)).flat();
}
