import { describe, expect, test } from 'bun:test';
import { selectTopology } from '../../../src/network/topology.ts';
import { chain, ring, routed } from '../../support/topologies.ts';

const names = (list: readonly { name: string }[]) => list.map(({ name }) => name);

describe('a part of a topology', () => {
  test('is all of it when nothing is named', () => {
    expect(selectTopology(routed, { networks: [], containers: [] })).toBe(routed);
  });

  test('of a network: all of its containers and those that share their network stacks, and no other network', () => {
    const part = selectTopology(routed, { networks: ['front'], containers: [] });
    expect(names(part.networks)).toEqual(['front']);
    expect(names(part.containers)).toEqual(['old', 'router', 'sidecar', 'web']);
  });

  test('of a container: all of its networks, but not their other containers', () => {
    const part = selectTopology(routed, { networks: [], containers: ['router'] });
    expect(names(part.networks)).toEqual(['front', 'back']);
    expect(names(part.containers)).toEqual(['router']);
  });

  test('of a container that shares another’s network stack: that one too', () => {
    expect(names(selectTopology(routed, { networks: [], containers: ['sidecar'] }).containers)).toEqual([
      'sidecar',
      'web',
    ]);
  });

  test('of a container with links: those at their other ends', () => {
    const part = selectTopology(chain, { networks: [], containers: ['r1'] });
    expect(names(part.containers)).toEqual(['r1', 'r2']);
    expect(part.links).toEqual([chain.links[0]!]);
    expect(selectTopology(ring, { networks: [], containers: ['c'] }).links).toEqual(ring.links);
  });
});
