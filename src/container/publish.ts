import fs from 'node:fs';
import { which } from '../host/launch.ts';
import { smallMachine } from '../host/machine.ts';
import type { Step } from '../host/steps.ts';
import { gatewayEndpoint } from '../network/attach.ts';
import type { Endpoint, PublishedPort } from '../network/definition.ts';
import { proposePorts, reservePorts } from '../network/port-store.ts';
import { type PortRequest, requestsForExposed } from '../network/ports.ts';
import { planPorts, type Target } from '../network/publish.ts';
import type { Definition } from './definition.ts';
import { nameOfContainer } from '../state/names.ts';
import { planForwards, portsInside } from './forward.ts';
import { containerFiles } from './store.ts';

/** What of a container is to be published: `-p`, and with `-P` what it exposes. */
export function portRequests({ publish = [], publishAll, exposedPorts = [] }: Definition): PortRequest[] {
  return publishAll === true ? [...publish, ...requestsForExposed(exposedPorts, publish)] : publish;
}

/** Where published ports lead: to the container's address in the network through which it has its default route. */
function targetOf(endpoints: readonly Endpoint[]): Target {
  const bridges = endpoints.filter(({ driver }) => driver === 'bridge');
  const [four, six] = [gatewayEndpoint(bridges, 'ipv4'), gatewayEndpoint(bridges, 'ipv6')];
  return {
    ipv4: four?.ipv4,
    ipv6: six?.ipv6,
    hostIfnames: [...new Set([four, six].flatMap((each) => each?.hostIfname ?? []))],
  };
}

/** Reserves the ports of a container that is being started. @throws MinirunError when one of them is taken */
export async function reserveFor(definition: Definition, endpoints: readonly Endpoint[]): Promise<PublishedPort[]> {
  return reservePorts(definition.id, portRequests(definition), optionsFor(endpoints));
}

/** The ports that a container would get if it were started now. */
export async function proposeFor(definition: Definition, endpoints: readonly Endpoint[]): Promise<PublishedPort[]> {
  return proposePorts(definition.id, portRequests(definition), optionsFor(endpoints));
}

function optionsFor(endpoints: readonly Endpoint[]) {
  const target = targetOf(endpoints);
  return {
    ipv4: target.ipv4 !== undefined,
    ipv6: target.ipv6 !== undefined,
    exists: (id: string) => fs.existsSync(containerFiles(id).directory),
    nameOf: nameOfContainer,
  };
}

/** The steps that lead these ports to the container. */
export function planPublished(ports: readonly PublishedPort[], endpoints: readonly Endpoint[]): Step[] {
  if (ports.length === 0) return [];
  const machine = smallMachine();
  const facts = { conntrack: which('conntrack') !== undefined };
  if (machine === undefined) return planPorts(targetOf(endpoints), ports, facts);
  return [...planPorts(targetOf(endpoints), portsInside(ports), facts), ...planForwards(ports, machine.portSocket)];
}
