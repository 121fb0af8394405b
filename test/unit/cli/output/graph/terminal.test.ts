import { describe, expect, test } from 'bun:test';
import { stripVTControlCharacters } from 'node:util';
import { renderTerminal } from '../../../../../src/cli/output/graph/terminal.ts';
import type { Topology } from '../../../../../src/network/topology.ts';
import {
  chain,
  hostile,
  mixed,
  nothing,
  oneContainer,
  ring,
  routed,
  tenContainers,
} from '../../../../support/topologies.ts';

const drawn = (topology: Topology, width: number, ascii = false): string =>
  renderTerminal(topology, { width, color: false, ascii });

describe('the picture for a terminal', () => {
  test('nothing but the host', () => {
    expect(drawn(nothing, 80)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴──────────────────────────────╮',
        '│ host lab                         │',
        '│ eth0  203.0.113.2/24             │',
        '│ default via 203.0.113.1 dev eth0 │',
        '╰──────────────────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('one container on the default network, with a published port', () => {
    expect(drawn(oneContainer, 80)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴────────────────────────────────────────╮',
        '│ host lab                                   │',
        '│ eth0      203.0.113.2/24                   │',
        '│ minirun0  10.90.0.1/16    bridge           │',
        '│ default via 203.0.113.1 dev eth0           │',
        '╰─╥──────────────────────────────────────────╯',
        '  ║',
        '  ╚═ minirun0  10.90.0.0/16 ══╤══',
        '                              │ eth0',
        '                     ╭────────┴──────────────╮',
        '                     │ web                   │',
        '                     │ nginx:1.27            │',
        '                     │ eth0 10.90.0.2/16     │',
        '                     │ default via 10.90.0.1 │',
        '                     │ *:8080 → 80/tcp       │',
        '                     ╰───────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('two networks with a router between, a stopped container, and two that share a network stack', () => {
    expect(drawn(routed, 120)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴────────────────────────────────────────────────────────────────────────────────────────────────────────────╮',
        '│ host lab                                                                                                       │',
        '│ eth0             203.0.113.2/24                                                                                │',
        '│ mr-0f3a9c1d2e4b  10.1.0.1/24     bridge of front                                                               │',
        '│ mr-7b6c5d4e3f2a  10.2.0.1/24     bridge of back, internal                                                      │',
        '│ default via 203.0.113.1 dev eth0                                                                               │',
        '│ + exporter  prom/node-exporter, host network                                                                   │',
        '╰─╥─╥────────────────────────────────────────────────────────────────────────────────────────────────────────────╯',
        '  ║ ║',
        '  ║ ╚═══════╤═ front  10.1.0.0/24 ══════╤════════════════════════╤══',
        '  ║         │                           │                        │',
        '  ╚═════════│═ back  10.2.0.0/24 ═══════│════════════════════════│════════╤══════════════════════╤══',
        '            │ eth0                      │ eth0                   │ eth0   │ eth1                 │ eth0',
        '        ╭╌╌╌┴╌╌╌╌╌╌╌╌╌╮   ╭─────────────┴──────────────────╮   ╭─┴────────┴───────╮   ╭──────────┴───────────────╮',
        '        ┆ old  exited ┆   │ web                            │   │ router  router   │   │ db                       │',
        '        ┆ busybox     ┆   │ nginx                          │   │ busybox          │   │ postgres:17              │',
        '        ┆ eth0        ┆   │ eth0 10.1.0.3/24               │   │ eth0 10.1.0.2/24 │   │ eth0 10.2.0.3/24         │',
        '        ╰╌╌╌╌╌╌╌╌╌╌╌╌╌╯   │ default via 10.1.0.1           │   │ eth1 10.2.0.2/24 │   │      fd00:2::3/64        │',
        '                          │ 127.0.0.1:8080 → 80/tcp        │   ╰──────────────────╯   │ 10.1.0.0/24 via 10.2.0.2 │',
        '                          │ + sidecar  debug, same network │                          ╰──────────────────────────╯',
        '                          ╰────────────────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('the same where it does not fit side by side: the networks go on in the next row', () => {
    expect(drawn(routed, 80)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴───────────────────────────────────────────────────────╮',
        '│ host lab                                                  │',
        '│ eth0             203.0.113.2/24                           │',
        '│ mr-0f3a9c1d2e4b  10.1.0.1/24     bridge of front          │',
        '│ mr-7b6c5d4e3f2a  10.2.0.1/24     bridge of back, internal │',
        '│ default via 203.0.113.1 dev eth0                          │',
        '│ + exporter  prom/node-exporter, host network              │',
        '╰─╥─╥───────────────────────────────────────────────────────╯',
        '  ║ ║',
        '  ║ ╠═══════╤═ front  10.1.0.0/24 ══════╤══',
        '  ║ ║       │ eth0                      │ eth0',
        '  ║ ║   ╭╌╌╌┴╌╌╌╌╌╌╌╌╌╮   ╭─────────────┴──────────────────╮',
        '  ║ ║   ┆ old  exited ┆   │ web                            │',
        '  ║ ║   ┆ busybox     ┆   │ nginx                          │',
        '  ║ ║   ┆ eth0        ┆   │ eth0 10.1.0.3/24               │',
        '  ║ ║   ╰╌╌╌╌╌╌╌╌╌╌╌╌╌╯   │ default via 10.1.0.1           │',
        '  ║ ║                     │ 127.0.0.1:8080 → 80/tcp        │',
        '  ║ ║                     │ + sidecar  debug, same network │',
        '  ║ ║                     ╰────────────────────────────────╯',
        '  ║ ║',
        '  ║ ╚═════╤═ front ═',
        '  ║       │',
        '  ╚═══════│════════╤══════════════════════╤═ back  10.2.0.0/24  internal ═',
        '          │ eth0   │ eth1                 │ eth0',
        '        ╭─┴────────┴───────╮   ╭──────────┴───────────────╮',
        '        │ router  router   │   │ db                       │',
        '        │ busybox          │   │ postgres:17              │',
        '        │ eth0 10.1.0.2/24 │   │ eth0 10.2.0.3/24         │',
        '        │ eth1 10.2.0.2/24 │   │      fd00:2::3/64        │',
        '        ╰──────────────────╯   │ 10.1.0.0/24 via 10.2.0.2 │',
        '                               ╰──────────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('a chain of links, with ASCII only', () => {
    expect(drawn(chain, 120, true)).toBe(
      [
        ' outside',
        '    | eth0',
        '+---+----------------------------------------------------------------------------------------------------------+',
        '| host lab                                                                                                     |',
        '| eth0  203.0.113.2/24                                                                                         |',
        '| lan   10.1.0.1/24     bridge                                                                                 |',
        '| default via 203.0.113.1 dev eth0                                                                             |',
        '+-+------------------------------------------------------------------------------------------------------------+',
        '  |',
        '  += lan  10.1.0.0/24 ==+==',
        '                        | eth0',
        '        +---------------+---------------------+               +-------------------+        +-------------------+',
        '        | r1  router                          |               | r2  router        |        | r3                |',
        '        | busybox                             | rate 10mbit   | busybox           | down   | busybox           |',
        '        | eth0 10.1.0.2/24                    |       +-------+ eth1 10.0.12.2/30 |   +----+ eth2 10.0.23.2/30 |',
        '        | eth1 10.0.12.1/30                   +-------+       | eth2 10.0.23.1/30 +---+    +-------------------+',
        '        | default via 10.1.0.1 dev eth0       |               +-------------------+',
        '        | 10.0.23.0/30 via 10.0.12.2 dev eth1 |',
        '        +-------------------------------------+',
        '',
      ].join('\n'),
    );
  });

  test('a chain that is continued in the next row', () => {
    expect(drawn(chain, 80)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴──────────────────────────────────────────────────╮',
        '│ host lab                                             │',
        '│ eth0  203.0.113.2/24                                 │',
        '│ lan   10.1.0.1/24     bridge                         │',
        '│ default via 203.0.113.1 dev eth0                     │',
        '╰─╥────────────────────────────────────────────────────╯',
        '  ║',
        '  ╚═══════════════════╤═ lan  10.1.0.0/24 ═',
        '                      │ eth0',
        '      ╭───────────────┴─────────────────────╮',
        '      │ r1  router                          │',
        '      │ busybox                             │',
        '      │ eth0 10.1.0.2/24                    │',
        '      │ eth1 10.0.12.1/30                   │',
        '      │ default via 10.1.0.1 dev eth0       │',
        '      │ 10.0.23.0/30 via 10.0.12.2 dev eth1 │',
        '      ╰───────────────┬─────────────────────╯',
        '                      │ eth1',
        '                      ╰─ rate 10mbit ─────────────────────╮',
        '                                                          │',
        '      ╭───────────────────╮        ╭───────────────────╮  │',
        '      │ r2  router        │        │ r3                │  │',
        '      │ busybox           │ down   │ busybox           │  │',
        '      │ eth1 10.0.12.2/30 │   ╭╌╌╌╌┤ eth2 10.0.23.2/30 │  │',
        '      │ eth2 10.0.23.1/30 ├╌╌╌╯    ╰───────────────────╯  │',
        '      ╰──────┬────────────╯                               │',
        '             │ eth1                                       │',
        '             ╰─ rate 10mbit ──────────────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('a ring of links, and a link to the host', () => {
    expect(drawn(ring, 100)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴──────────────────────────────────────────────────────────────────────────────╮',
        '│ host lab                                                                         │',
        '│ eth0   203.0.113.2/24                                                            │',
        '│ veth9  172.18.0.10/12  cable to c                                                │',
        '│ default via 203.0.113.1 dev eth0                                                 │',
        '╰─┬────────────────────────────────────────────────────────────────────────────────╯',
        '  │',
        '  ╰───────────────────────────────────────────────────────────────────╮',
        '                                                                      │ up0',
        '      ╭───────────────────╮       ╭───────────────────╮       ╭───────┴────────────╮',
        '      │ a                 │       │ b                 │       │ c                  │',
        '      │ busybox           │       │ busybox           │       │ busybox            │',
        '      │ left 10.0.0.1/30  │   ╭───┤ left 10.0.0.1/30  │   ╭───┤ left 10.0.0.1/30   │',
        '      │ right 10.0.0.2/30 ├───╯   │ right 10.0.0.2/30 ├───╯   │ right 10.0.0.2/30  │',
        '      ╰──────┬────────────╯       ╰───────────────────╯       │ up0 172.18.0.20/12 │',
        '             │ left                                           ╰──────┬─────────────╯',
        '             │                                                       │ right',
        '             ╰───────────────────────────────────────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('a macvlan, an IPv6 network that is down, and a container without a network', () => {
    expect(drawn(mixed, 100)).toBe(
      [
        ' outside',
        '    │ eth0',
        '╭───┴─────────────────────────────────────────────────────────────────────────────╮',
        '│ host lab                                                                        │',
        '│ eth0  203.0.113.2/24                                                            │',
        '│ six   fd12:3456:789a::1/64  bridge, down                                        │',
        '│ default via 203.0.113.1 dev eth0                                                │',
        '╰─╥─╥─────────────────────────────────────────────────────────────────────────────╯',
        '  ║ ║',
        '  ║ ╚═ lan  192.0.2.0/24  macvlan on eth0 ══╤══',
        '  ║                                         │',
        '  ╚═══ six  fd12:3456:789a::/64  down ══════│═════════════╤══',
        '                                            │ eth0        │ eth1',
        '                                        ╭───┴─────────────┴─────────╮   ╭─────────╮',
        '                                        │ both                      │   │ alone   │',
        '                                        │ busybox                   │   │ busybox │',
        '                                        │ eth0 192.0.2.9/24         │   ╰─────────╯',
        '                                        │ eth1 fd12:3456:789a::2/64 │',
        '                                        ╰───────────────────────────╯',
        '',
      ].join('\n'),
    );
  });

  test('ten containers: no line is longer than the terminal is wide, and all are there', () => {
    for (const width of [60, 80, 100, 120, 200]) {
      const picture = drawn(tenContainers, width);
      expect(Math.max(...picture.split('\n').map((line) => line.length))).toBeLessThanOrEqual(width);
      for (const { name, interfaces } of tenContainers.containers) {
        expect(picture).toContain(` ${name} `);
        expect(picture).toContain(interfaces[0]?.addresses[0] as string);
      }
    }
  });

  test('colors change nothing but the colors', () => {
    for (const topology of [routed, chain, ring]) {
      const colored = renderTerminal(topology, { width: 100, color: true, ascii: false });
      expect(colored).toContain(topology === ring ? '\u001B[31m' : '\u001B[36m');
      expect(stripVTControlCharacters(colored).replaceAll(/ +\n/g, '\n')).toBe(drawn(topology, 100));
    }
  });

  test('control characters of others do not reach the terminal, and ASCII only is ASCII only', () => {
    expect(drawn(hostile, 80)).not.toContain('\u001B');
    for (const topology of [hostile, routed, chain, ring, mixed])
      expect(drawn(topology, 80, true)).toMatch(/^[\n -~]*$/);
  });
});
