import { renderScript, type Section } from '../host/script.ts';
import type { Network } from './definition.ts';
import { defaultMtu, hasIpv6, ipForward, type NetworkFacts } from './facts.ts';
import { planNetwork } from './lifecycle.ts';
import { isUp } from './store.ts';

/** A host on which minirun has done nothing yet, with this one's MTU and forwarding. */
function untouchedHost(forwarding: boolean): NetworkFacts {
  return { bridgeExists: false, ipForward: forwarding, ipv6: hasIpv6(), mtu: defaultMtu(), firewall: [] };
}

/** The steps that make a network, under a heading that says whether they would be taken here. */
export function networkSection(network: Network): Section {
  // While a network of ours is up, ip_forward is on because of us: the script is to be complete all the same.
  const up = isUp(network);
  const steps = planNetwork(network, untouchedHost(up ? false : ipForward()));
  return {
    title: up
      ? `Network ${network.name}: it is up on this machine, so minirun skips this part here`
      : `Network ${network.name}`,
    steps,
  };
}

/** `network create --explain`. */
export async function explainNetwork(network: Network): Promise<string> {
  return renderScript(`Network ${network.name}: what minirun does to make it, as a person would type it.`, [
    networkSection(network),
  ]);
}
