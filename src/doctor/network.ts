import { runTool } from '../host/exec.ts';
import { which } from '../host/launch.ts';
import { defaultNetworkName, defaultPools } from '../network/definition.ts';
import { ipForward, overlappingRoute } from '../network/facts.ts';
import { type Check, isRoot, missing, ok, warning } from './check.ts';
import { asRoot, installCommand } from './packages.ts';

/** What the default network depends on beside the tools. */
export async function checkNetwork(): Promise<Check[]> {
  return [checkPool(), checkForwarding(), ...(await Promise.all([checkNat(), checkForwardPolicy()]))];
}

function checkPool(): Check {
  const [first = '', ...others] = defaultPools;
  const route = overlappingRoute(first, defaultNetworkName);
  if (route === undefined) return ok('default network', first);
  const other = others.find((pool) => overlappingRoute(pool, defaultNetworkName) === undefined);
  if (other !== undefined) return ok('default network', `${other} (this host has the route ${route})`);
  return missing(
    'default network',
    `each of ${defaultPools.join(', ')} overlaps a route of this host`,
    'minirun network create --subnet RANGE NAME, then run --network NAME',
  );
}

function checkForwarding(): Check {
  return ok('ip_forward', ipForward() ? 'on' : 'off; the first container turns it on, the last one off');
}

/** Sets the kinds of rules that networks need in a network namespace that ends with the probe. */
async function checkNat(): Promise<Check> {
  const name = 'iptables nat';
  if (which('iptables-restore') === undefined || which('unshare') === undefined) {
    return missing(name, 'not tried without iptables-restore and unshare', installCommand('iptables'));
  }
  if (!isRoot()) return warning(name, 'not tried', 'sudo minirun doctor');
  const rules = [
    '*filter',
    '-A FORWARD -o p0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    'COMMIT',
    '*nat',
    '-A POSTROUTING -s 10.90.0.0/16 ! -o p0 -j MASQUERADE',
    'COMMIT',
    '',
  ];
  const { exitCode, stderr } = await runTool(
    'unshare',
    ['--net', 'iptables-restore', '--noflush', '-w'],
    rules.join('\n'),
  );
  if (exitCode === 0) return ok(name, 'MASQUERADE and conntrack work');
  const reason = stderr.trim().split('\n')[0];
  return missing(
    name,
    `this kernel refuses the rules: ${reason}`,
    asRoot('modprobe -a nf_nat xt_MASQUERADE xt_conntrack'),
  );
}

async function checkForwardPolicy(): Promise<Check> {
  const name = 'FORWARD policy';
  if (which('iptables') === undefined) return warning(name, 'not read without iptables', installCommand('iptables'));
  if (!isRoot()) return warning(name, 'not read', 'sudo minirun doctor');
  const { exitCode, stdout, stderr } = await runTool('iptables', ['-w', '-S', 'FORWARD']);
  if (exitCode !== 0) return warning(name, `cannot be read: ${stderr.trim().split('\n')[0]}`);
  const policy = /^-P FORWARD (\w+)/m.exec(stdout)?.[1] ?? 'unknown';
  const why = policy === 'DROP' ? ', set by another tool (docker does that); minirun’s own rules come first' : '';
  return ok(name, `${policy}${why}`);
}
