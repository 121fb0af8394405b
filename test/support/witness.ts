import { expect } from 'bun:test';
import fs from 'node:fs';
import path from 'node:path';
import { hostAddress, internetAddress, type World } from './world.ts';

/** A container that lives all the time and must not notice anything, with a published port and a link to the host. */
export class Witness {
  private constructor(
    private readonly world: World,
    private readonly state: string,
    private readonly address: string,
  ) {}

  static async start(world: World): Promise<Witness> {
    const script = 'mkdir /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www';
    const run = ['run', '-d', '--name', 'witness', '-p', '8888:80', 'busybox', 'sh', '-c', script];
    const result = await world.run(run);
    if (result.code !== 0) throw new Error(result.stderr);
    await world.sh(
      'minirun link add --name witness --addr 10.99.0.2/24 --peer-addr 10.99.0.1/24 witness:eth9 host:witness0',
    );
    const file = path.join(world.root, 'containers', result.stdout.trim(), 'state.json');
    const { endpoints } = JSON.parse(fs.readFileSync(file, 'utf8')) as { endpoints: { ipv4: { address: string } }[] };
    const address = endpoints[0]?.ipv4.address ?? '';
    const witness = new Witness(world, file, address);
    witness.seen = witness.look();
    return witness;
  }

  private seen = '';

  private look(): string {
    const { init, owner, netns, endpoints, status } = JSON.parse(fs.readFileSync(this.state, 'utf8')) as Record<
      string,
      { pid: number }
    >;
    const namespace = fs.readlinkSync(this.world.host.path(`/proc/${init?.pid}/ns/net`));
    const named = fs.statSync(this.world.host.path('/run/netns/witness')).ino;
    return JSON.stringify({ init, owner, netns, endpoints, status, namespace, named });
  }

  /** The same processes, namespace and address as ever. Costs nothing. */
  expectSame(): void {
    expect(this.look()).toBe(this.seen);
  }

  /** And the host reaches it, over its network and its link, the internet by its port; and it reaches the internet. */
  async check(): Promise<void> {
    this.expectSame();
    const get = (address: string) => `timeout 5 busybox wget -q -O - http://${address}/`;
    const script = `${get(this.address)}; ${get('10.99.0.2')}; ip netns exec witness ${get(internetAddress)}`;
    expect(await this.world.sh(script)).toBe(`here\nhere\n${hostAddress}\n`);
    expect(await this.world.internet.sh(get(`${hostAddress}:8888`))).toBe('here\n');
  }
}
