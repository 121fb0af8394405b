import fs from 'node:fs';
import path from 'node:path';
import type { Result, RunOptions, Running } from './machine.ts';
import { minirun, type World } from './world.ts';

/** An id that no user of the real machine is likely to have. */
const uid = 31_415;

/** An ordinary user of a world: without capabilities, with a home of his own, and with subordinate ids. */
export class User {
  /** Where his minirun keeps everything. */
  readonly root: string;

  private constructor(
    readonly world: World,
    readonly home: string,
    private readonly binary: string,
  ) {
    this.root = path.join(home, '.local/share/minirun');
  }

  /** Makes a user of a world that has none yet. What he shall not have is `without` in `subids`. */
  static async create(world: World): Promise<User> {
    const home = path.join(world.directory, 'home');
    const files = path.join(world.directory, 'user');
    for (const directory of [home, files]) fs.mkdirSync(directory);
    fs.chmodSync(world.directory, 0o711);
    fs.chownSync(home, uid, uid);
    fs.chmodSync(home, 0o700);
    const passwd = fs.readFileSync('/etc/passwd', 'utf8');
    fs.writeFileSync(path.join(files, 'passwd'), `${passwd.trimEnd()}\nalice:x:${uid}:${uid}::${home}:/bin/sh\n`);
    fs.writeFileSync(path.join(files, 'subuid'), 'alice:1000000000:65536\n');
    fs.writeFileSync(path.join(files, 'subgid'), 'alice:1100000000:65536\n');
    const binary = path.join(files, 'minirun');
    try {
      fs.linkSync(minirun, binary);
    } catch {
      fs.copyFileSync(minirun, binary);
    }
    fs.chmodSync(binary, 0o755);
    // On a stock machine udev lets everybody open it.
    await world.sh(`
      for f in passwd subuid subgid; do
        [ -e /etc/$f ] || : >/etc/$f
        mount --bind ${files}/$f /etc/$f
      done
      mount -t tmpfs -o mode=755 dev ${files}
      mknod -m 666 ${files}/tun c 10 200
      mount --bind ${files}/tun /dev/net/tun
      umount -l ${files}`);
    return new User(world, home, binary);
  }

  /** What runs a command as the user: like a login, with nothing of root's. */
  command(args: readonly string[], env: Record<string, string> = {}): string[] {
    const { PATH = '' } = this.world.host.env;
    const variables = { HOME: this.home, USER: 'alice', PATH: `${path.dirname(this.binary)}:${PATH}`, ...env };
    return [
      'setpriv',
      '--reuid',
      String(uid),
      '--regid',
      String(uid),
      '--clear-groups',
      '--inh-caps=-all',
      '--',
      'env',
      '-i',
      ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
      ...args,
    ];
  }

  /** Runs minirun as the user, to its end. */
  async run(args: readonly string[], env?: Record<string, string>, options: RunOptions = {}): Promise<Result> {
    return this.world.host.run(this.command([this.binary, ...args], env), { cwd: this.home, ...options });
  }

  /** Starts minirun as the user. */
  async spawn(args: readonly string[], env?: Record<string, string>, options: RunOptions = {}): Promise<Running> {
    return this.world.host.spawn(this.command([this.binary, ...args], env), { cwd: this.home, ...options });
  }

  /** Runs a shell script as the user; fails unless it exits with 0. */
  async sh(script: string): Promise<string> {
    const result = await this.world.host.run(this.command(['sh', '-euc', script]), { cwd: this.home });
    if (result.code !== 0)
      throw new Error(`script failed (${result.code}): ${script}\n${result.stdout}${result.stderr}`);
    return result.stdout;
  }
}
