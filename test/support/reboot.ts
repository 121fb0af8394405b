import fs from 'node:fs';
import path from 'node:path';
import type { World } from './world.ts';

/**
 * What a reboot does to the host of a world: every process ends, interfaces, namespaces, rules and what is in /run are gone, and what
 * minirun has on file is of another boot.
 */
export async function simulateReboot(world: World): Promise<void> {
  // The host has a pid namespace of its own, and -1 means all of it but its first process and this shell.
  await world.sh(`
    [ "$(readlink /proc/1/exe)" != "$(readlink /proc/$$/exe)" ] && [ "$(cat /proc/1/comm)" = sleep ]
    kill -KILL -1
    for name in $(ls /run/netns); do ip netns del $name; done
    [ ! -d /run/minirun ] || find /run/minirun -mindepth 1 -delete
    for bridge in $(ls -d /sys/class/net/*/bridge 2> /dev/null); do ip link del $(basename $(dirname $bridge)); done
    for iptables in iptables ip6tables; do $iptables -F; $iptables -t nat -F; $iptables -X; $iptables -t nat -X; done
    echo 0 > /proc/sys/net/ipv4/ip_forward
  `);
  const containers = path.join(world.root, 'containers');
  const networks = path.join(world.root, 'networks');
  const files = [
    ...fs.readdirSync(containers).map((entry) => path.join(containers, entry, 'state.json')),
    ...fs.readdirSync(networks).flatMap((entry) => (entry.endsWith('.json') ? [path.join(networks, entry)] : [])),
  ];
  for (const file of files) {
    const text = fs.readFileSync(file, 'utf8');
    fs.writeFileSync(file, text.replace(/"boot": "[^"]*"/, '"boot": "11111111-2222-3333-4444-555555555555"'));
  }
}
