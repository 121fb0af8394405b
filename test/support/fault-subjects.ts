import fs from 'node:fs';
import path from 'node:path';
import type { Subject } from './faults.ts';
import { FaultyRegistry } from './faulty-registry.ts';
import { archiveOf } from './oci-layout.ts';
import { tar } from './tar-writer.ts';
import { internetAddress, type World } from './world.ts';

/** Subjects that share a world, and what that must have. */
export interface Group {
  name: string;
  prepare?: (world: World) => Promise<unknown>;
  subjects: (world: World) => Subject[] | Promise<Subject[]>;
}

const sleeper = 'busybox sleep 1000';
const quiet = (...commands: string[]): string =>
  commands.map((command) => `minirun ${command} >/dev/null 2>>"$HOME/after.log" || :`).join('\n');
const words = (command: string): string[] => command.split(' ');
const running = `minirun run -d --name victim ${sleeper}`;
const isUp = 'minirun exec victim true';
const net = 'network create --subnet 10.77.0.0/24 --subnet fd00:77::/64 net';
const joined = `run -d --name victim --network minirun0 --network net ${sleeper}`;
const netGone = quiet('rm -f -v victim', 'network rm net');
const victimGone = quiet('rm -f -v victim');
const reaches = (...addresses: string[]): string =>
  addresses
    .map((address) => `ip netns exec victim ping -q -c 1 -W 1 ${address} >/dev/null || { echo ${address}; exit 1; }`)
    .join('\n');

const containers: Subject[] = [
  { name: 'run --rm', command: words('run --rm --name victim busybox true'), after: victimGone, undone: true },
  {
    name: 'run',
    command: words('run --name victim --network none busybox echo hello'),
    after: victimGone,
    done: `[ "$(minirun inspect --format '{{.State.ExitCode}}' victim)" = 0 ]`,
  },
  { name: 'run -d', command: words(`run -d --name victim ${sleeper}`), after: victimGone, undone: true, done: isUp },
  {
    name: 'run -d -p',
    command: words(`run -d --name victim -p 8080:80 -p 5353:53/udp -p 9000-9002 ${sleeper}`),
    after: victimGone,
    undone: true,
    done: 'minirun port victim | grep -q 8080',
  },
  {
    name: 'run -d with a volume',
    command: words(`run -d --name victim -v /data -v /etc ${sleeper}`),
    after: victimGone,
    undone: true,
    done: isUp,
  },
  {
    name: 'run -d --userns auto',
    command: words(`run -d --name victim --userns auto ${sleeper}`),
    after: victimGone,
    undone: true,
    done: isUp,
  },
  {
    name: 'run -d with limits',
    command: words(`run -d --name victim -m 64m --pids-limit 50 ${sleeper}`),
    after: victimGone,
    undone: true,
    done: isUp,
  },
  { name: 'create', command: words('create --name victim -v /etc busybox true'), after: victimGone, undone: true },
  {
    name: 'start',
    before: `minirun create --name victim -p 8080:80 ${sleeper}`,
    command: ['start', 'victim'],
    after: victimGone,
    undone: true,
    done: isUp,
  },
  {
    name: 'stop',
    before: running,
    command: words('stop -t 0 victim'),
    after: victimGone,
    done: '! minirun exec victim true 2>/dev/null',
  },
  { name: 'kill', before: running, command: ['kill', 'victim'], after: victimGone },
  { name: 'restart', before: running, command: words('restart -t 0 victim'), after: victimGone, done: isUp },
  {
    name: 'rm -f',
    before: `minirun run -d --name victim -p 8080:80 -v /data ${sleeper}`,
    command: words('rm -f -v victim'),
    after: victimGone,
    done: '! minirun inspect victim >/dev/null 2>&1',
  },
  {
    name: 'rm',
    before: 'minirun create --name victim -v /data busybox true',
    command: words('rm -v victim'),
    after: victimGone,
    done: '! minirun inspect victim >/dev/null 2>&1',
  },
  {
    name: 'rename',
    before: running,
    command: words('rename victim other'),
    after: quiet('rm -f victim', 'rm -f other'),
    done: 'minirun exec other true',
  },
  { name: 'reap', before: running, command: [], after: victimGone },
  {
    name: 'reap with --rm',
    before: `minirun run -d --rm --name victim -v /data ${sleeper}`,
    command: [],
    after: victimGone,
  },
  {
    name: 'reap with --restart',
    before: `minirun run -d --restart always --name victim ${sleeper}`,
    command: [],
    after: victimGone,
  },
  // What runs in the container is no boundary: nothing is left of it but its exit code.
  {
    name: 'exec',
    before: running,
    command: words('exec victim true'),
    after: victimGone,
    codes: [126, 127, 255],
    heals: isUp,
  },
  {
    name: 'run -d with a named volume',
    command: words(`run -d --name victim -v data:/etc ${sleeper}`),
    after: quiet('rm -f -v victim', 'volume rm data'),
    done: isUp,
  },
  { name: 'volume create', command: words('volume create data'), after: quiet('volume rm data'), undone: true },
  {
    name: 'volume rm',
    before: 'minirun volume create data >/dev/null',
    command: words('volume rm data'),
    after: quiet('volume rm data'),
    done: '! minirun volume inspect data >/dev/null 2>&1',
  },
];

const networks: Subject[] = [
  {
    name: 'run with two networks',
    before: `minirun ${net}`,
    command: words(joined),
    after: netGone,
    undone: true,
    done: reaches('10.77.0.1', 'fd00:77::1', internetAddress),
  },
  {
    name: 'network create',
    command: words(net),
    after: quiet('network rm net'),
    undone: true,
    done: 'minirun run --rm --network net busybox ping -q -c 1 10.77.0.1 >/dev/null',
  },
  {
    name: 'network rm',
    before: `minirun ${net}`,
    command: words('network rm net'),
    after: quiet('network rm net'),
    done: '! minirun network inspect net >/dev/null 2>&1',
  },
  {
    name: 'network connect',
    before: `minirun run -d --name victim -p 8080:80 ${sleeper}; minirun ${net}`,
    command: words('network connect net victim'),
    after: netGone,
    undone: true,
    heals: `minirun network connect net victim 2>/dev/null || :\n${reaches('10.77.0.1', 'fd00:77::1', internetAddress)}`,
  },
  {
    name: 'network disconnect',
    before: `minirun ${net}; minirun ${joined}`,
    command: words('network disconnect net victim'),
    after: netGone,
    heals: `minirun network disconnect net victim 2>/dev/null || :\n! ip -n victim link show eth1 2>/dev/null\nminirun network rm net >/dev/null\n${reaches(internetAddress)}`,
  },
  {
    name: 'network reload',
    before: `minirun ${net}; minirun ${joined}
      ip link del $(ip -j route get 10.77.0.9 | sed 's/.*"dev":"\\([^"]*\\)".*/\\1/'); ip6tables -t nat -F`,
    command: words('network reload'),
    after: netGone,
    heals: `minirun network reload >/dev/null\n${reaches('10.77.0.1', 'fd00:77::1', internetAddress)}`,
  },
];

const ends = '--addr 10.98.0.1/24 --peer-addr 10.98.0.2/24';
const linked = `minirun run -d --name victim --network none ${sleeper}; minirun run -d --name peer --network none ${sleeper}`;
const links: Subject[] = [
  {
    name: 'link add',
    before: linked,
    command: words(`link add --name cable ${ends} --rate 100mbit victim:eth1 peer:eth1`),
    after: quiet('link rm cable', 'rm -f victim peer'),
    undone: true,
    heals: `minirun link add --name cable ${ends} victim:eth1 peer:eth1 >/dev/null 2>&1 || :\n${reaches('10.98.0.2')}`,
  },
  {
    name: 'link rm',
    before: `${linked}; minirun link add --name cable ${ends} victim:eth1 peer:eth1`,
    command: words('link rm cable'),
    after: quiet('link rm cable', 'rm -f victim peer'),
    heals:
      'minirun link rm cable >/dev/null 2>&1 || :\n! ip -n victim link show eth1 2>/dev/null\n! ip -n peer link show eth1 2>/dev/null',
  },
  {
    name: 'link set',
    before: `${linked}; minirun link add --name cable ${ends} victim:eth1 peer:eth1`,
    command: words('link set cable --mtu 1400 --rate 50mbit'),
    after: quiet('link rm cable', 'rm -f victim peer'),
    undone: true,
    heals: reaches('10.98.0.2'),
  },
  {
    name: 'start with a link',
    before: `${linked}; minirun link add --name cable ${ends} victim:eth1 peer:eth1; minirun stop -t 0 victim >/dev/null`,
    command: ['start', 'victim'],
    after: quiet('link rm cable', 'rm -f victim peer'),
    undone: true,
    heals: `minirun start victim >/dev/null 2>&1 || :\n${reaches('10.98.0.2')}`,
  },
  {
    name: 'rm -f with a link',
    before: `${linked}; minirun link add --name cable ${ends} victim:eth1 peer:eth1`,
    command: words('rm -f victim'),
    after: quiet('link rm cable', 'rm -f victim peer'),
  },
  {
    name: 'route add',
    before: running,
    command: words('route add victim 192.0.2.0/24 via 10.90.0.1'),
    after: victimGone,
    undone: true,
    heals:
      'minirun route add victim 192.0.2.0/24 via 10.90.0.1 2>/dev/null || :\nip -n victim route | grep -q ^192.0.2.0/24',
  },
];

/** Of images: pulled from a registry of the world, from archives, and made of a container. */
async function images(world: World): Promise<Subject[]> {
  const registry = await FaultyRegistry.start(world);
  const layers = ['one', 'two'].map((name) => tar([{ path: name, content: name.repeat(50_000) }]));
  const { reference } = await registry.publish('victim', layers);
  const archive = path.join(world.directory, 'archive.tar');
  fs.writeFileSync(archive, archiveOf([{ layers, name: 'victim:1' }]));
  const rootfs = path.join(world.directory, 'rootfs.tar');
  fs.writeFileSync(rootfs, tar([{ path: 'three', content: 'three' }]));
  const saved = path.join(world.directory, 'saved.tar');
  const file = path.join(world.directory, 'file');
  fs.writeFileSync(file, 'x'.repeat(100_000));
  const imageGone = quiet(
    'rm -f victim',
    `rmi -f ${reference}`,
    'rmi -f victim:1',
    'rmi -f victim:2',
    'image prune -f',
  );
  const again = (command: string, image: string): string =>
    `minirun ${command} >/dev/null 2>&1\nminirun image inspect ${image} >/dev/null`;
  const inVictim = `minirun run -d --name victim --network none ${sleeper}`;
  return [
    {
      name: 'pull',
      command: ['pull', '-q', reference],
      after: imageGone,
      undone: true,
      heals: again(`pull ${reference}`, reference),
    },
    {
      name: 'load',
      command: ['load', '-q', '-i', archive],
      after: imageGone,
      undone: true,
      heals: again(`load -i ${archive}`, 'victim:1'),
    },
    {
      name: 'import',
      command: ['import', rootfs, 'victim:1'],
      after: imageGone,
      undone: true,
      heals: again(`import ${rootfs} victim:1`, 'victim:1'),
    },
    { name: 'tag', before: `minirun load -q -i ${archive}`, command: words('tag victim:1 victim:2'), after: imageGone },
    {
      name: 'rmi',
      before: `minirun load -q -i ${archive}`,
      command: words('rmi victim:1'),
      after: imageGone,
      heals: quiet('rmi victim:1'),
    },
    {
      name: 'image prune',
      before: `minirun load -q -i ${archive}; minirun rmi -f nobody 2>/dev/null || :`,
      command: words('image prune -f'),
      after: imageGone,
    },
    {
      name: 'save',
      before: `minirun load -q -i ${archive}`,
      command: ['save', '-o', saved, 'victim:1'],
      after: `${imageGone}\n[ -z "$(ls -A ${world.directory} | grep 'saved.tar.')" ]\nrm -f ${saved}`,
      done: `tar -tf ${saved} >/dev/null`,
    },
    {
      name: 'commit',
      before: `${inVictim}; minirun exec victim sh -c 'echo new >/new; rm -r /etc/passwd'`,
      command: words('commit victim victim:1'),
      after: imageGone,
      undone: true,
      heals: again('commit victim victim:1', 'victim:1'),
      done: '[ "$(minirun run --rm --network none victim:1 cat /new)" = new ]',
    },
    {
      name: 'cp into',
      before: inVictim,
      command: ['cp', file, 'victim:/copy'],
      after: victimGone,
      done: `[ "$(minirun exec victim wc -c /copy)" = '100000 /copy' ]`,
    },
    {
      name: 'cp out of',
      before: inVictim,
      command: ['cp', 'victim:/bin/busybox', `${world.directory}/busybox`],
      after: `${victimGone}\nrm -f ${world.directory}/busybox`,
    },
    {
      name: 'export',
      before: inVictim,
      command: ['export', '-o', saved, 'victim'],
      after: `${victimGone}\n[ -z "$(ls -A ${world.directory} | grep 'saved.tar.')" ]\nrm -f ${saved}`,
      done: `tar -tf ${saved} >/dev/null`,
    },
    {
      name: 'system prune',
      before: `minirun create --name victim -v /data busybox true; minirun ${net}`,
      command: words('system prune -f --volumes'),
      // One that fails has not come to the volumes of containers that it has removed.
      heals: quiet('system prune -f --volumes'),
      after: netGone,
    },
  ];
}

export const groups: Group[] = [
  { name: 'containers', subjects: () => containers },
  { name: 'networks', subjects: () => networks },
  { name: 'links', subjects: () => links },
  { name: 'images', subjects: images },
];
