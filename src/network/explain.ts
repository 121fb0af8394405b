import { renderScript, type Section } from '../host/script.ts';
import type { Step } from '../host/steps.ts';
import type { Network } from './definition.ts';
import { defaultMtu, hasIpv6, ipForward, ipForward6, type NetworkFacts } from './facts.ts';
import { familiesOf, sharedSteps } from './firewall.ts';
import { planNetwork } from './lifecycle.ts';
import { readNameFacts } from './names.ts';
import { isUp, listNetworks } from './store.ts';

/** A host on which minirun has done nothing yet, with this one's MTU and forwarding. */
function untouchedHost(forwarding: boolean, forwarding6: boolean): NetworkFacts {
  return {
    bridgeExists: false,
    ipForward: forwarding,
    ipForward6: forwarding6,
    ipv6: hasIpv6(),
    mtu: defaultMtu(),
    firewall: [],
    firewall6: [],
  };
}

function planOnUntouchedHost(network: Network): Step[] {
  // While a network of ours is up, ip_forward is on because of us: the script is to be complete all the same.
  const facts = untouchedHost(isUp(network) ? false : ipForward(), isUp(network) ? false : ipForward6());
  const steps = planNetwork(network, facts, { ...readNameFacts(network), portTaken: false });
  // What other networks have made for all must neither be made again nor be taken away from them.
  const others = listNetworks().filter((each) => each.name !== network.name && each.driver === 'bridge' && isUp(each));
  const families = new Set(others.flatMap(familiesOf));
  return steps.filter(({ id }) => ![...families].some((family) => sharedSteps[family].has(id)));
}

/**
 * The steps that make the network of a container, which its other containers share: like minirun, the script makes it
 * only where it is not up, and takes it down only when nobody else is plugged in.
 *
 * @param ownPort the container's own port on the bridge
 */
export function sharedNetworkSection(network: Network, ownPort: string): Section {
  const { bridge, name, automatic } = network;
  if (!automatic && isUp(network))
    return { title: `Network ${name} is there and stays; "minirun network create" has made it`, steps: [] };
  const steps = planOnUntouchedHost(network);
  return {
    title: `Network ${name}, unless it is up already`,
    // One that somebody has created stays when its containers go.
    steps: automatic ? steps : steps.map((step) => ({ ...step, undo: [] })),
    shared: {
      present: `ip link show dev ${bridge} >/dev/null 2>&1`,
      // The kernel takes the own port away a moment after its namespace.
      used: `ip -o link show master ${bridge} | grep -qv ' ${ownPort}[@:]'`,
    },
  };
}

/** `network create --explain`. */
export async function explainNetwork(network: Network): Promise<string> {
  return renderScript(`Network ${network.name}: what minirun does to make it, as a person would type it.`, [
    { title: `Network ${network.name}`, steps: planOnUntouchedHost(network) },
  ]);
}
