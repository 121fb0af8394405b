import { applySteps } from '../host/executor.ts';
import type { Step } from '../host/steps.ts';
import { planPort } from './attach.ts';
import type { Endpoint, Network } from './definition.ts';
import { hasIpv6, interfaceExists, readFirewall } from './facts.ts';
import { familiesOf, missingRules, planRules } from './firewall.ts';
import { bringUp, updateClaimed, withUndoOf } from './lifecycle.ts';
import { hasNameServer, planNameServer, readNameFacts } from './names.ts';
import { changeNetwork, claimNetwork, isUp, listNetworks } from './store.ts';

/**
 * Puts back what somebody has taken away of the networks that are up: rules after `iptables -F` or a reload of firewalld,
 * bridges, their ports, name servers. What is there stays as it is.
 *
 * @param endpoints of all running containers
 * @param ports the steps of all published ports
 * @returns the names of the networks
 */
export async function reloadNetworks(endpoints: readonly Endpoint[], ports: readonly Step[]): Promise<string[]> {
  // One that is down, although containers are in it, is one whose reload has failed.
  const isUsed = ({ name, up }: Network) => up || endpoints.some(({ network }) => network === name);
  const networks = listNetworks().filter((network) => network.driver === 'bridge' && isUsed(network));
  for (const { name } of networks) {
    const mine = endpoints.filter((endpoint) => endpoint.network === name && interfaceExists(endpoint.hostIfname));
    const network = await changeNetwork(
      name,
      (current) => {
        current.up = isUp(current);
        claimNetwork(current);
        return current;
      },
      undefined,
      () => true,
    );
    if (network.up) await restoreRules(network);
    else await bringUp(network);
    await applySteps(mine.flatMap(planPort));
  }
  if (ports.length > 0) {
    const [saved, saved6] = await Promise.all([readFirewall(4), hasIpv6() ? readFirewall(6) : []]);
    await applySteps(missingRules(ports, { 4: saved, 6: saved6 }));
  }
  return networks.map(({ name }) => name);
}

async function restoreRules(network: Network): Promise<void> {
  const steps: Step[] = [];
  for (const family of familiesOf(network)) steps.push(...planRules(network, family, await readFirewall(family)));
  if (!hasNameServer(network.name)) steps.push(...planNameServer(network, readNameFacts(network)));
  try {
    await updateClaimed(network.name, (current) => {
      current.applied = withUndoOf(current.applied, steps);
    });
    // What of it has been applied when a step fails is better than nothing.
    await applySteps(steps, { callersOwn: new Set(steps) });
  } finally {
    await updateClaimed(network.name, (current) => {
      current.claim = undefined;
    });
  }
}
