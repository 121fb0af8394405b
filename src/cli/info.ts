import type { Command } from 'commander';
import { version } from './version.ts';
import { print } from './output/stdout.ts';

/** `minirun info` */
export function registerInfo(program: Command): void {
  program
    .command('info')
    .summary('Show what minirun and this machine are')
    .option('-f, --format <format>', '"json" or a Go template')
    .action(async ({ format }: { format?: string }) => {
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { systemInfo } = await import('../container/info.ts');
      const info = await systemInfo(version);
      if (await printedAs(format, info)) return;
      const lines: [string, string | number][] = [
        ['Containers', info.Containers],
        [' Running', info.ContainersRunning],
        [' Stopped', info.ContainersStopped],
        ['Images', info.Images],
        ['Networks', info.Networks],
        ['minirun Version', info.ServerVersion],
        ['Storage Driver', info.Driver],
        ['State Directory', info.StateRoot],
        ['Rootless', String(info.Rootless)],
        ['Cgroup Version', info.CgroupVersion],
        ['Firewall', info.FirewallBackend],
        ['Kernel Version', info.KernelVersion],
        ['Operating System', info.OperatingSystem],
        ['OSType', info.OSType],
        ['Architecture', info.Architecture],
        ['CPUs', info.NCPU],
        ['Total Memory', `${(info.MemTotal / 2 ** 30).toPrecision(4)}GiB`],
        ['Name', info.Name],
      ];
      print(lines.map(([name, value]) => `${name}: ${value}\n`).join(''));
    });
}

/** `minirun version` */
export function registerVersion(program: Command): void {
  program
    .command('version')
    .summary('Show the version')
    .option('-f, --format <format>', '"json" or a Go template')
    .action(async ({ format }: { format?: string }) => {
      const { default: os } = await import('node:os');
      const about = {
        Version: version,
        BunVersion: process.versions.bun ?? '',
        Os: process.platform,
        Arch: process.arch === 'x64' ? 'amd64' : process.arch,
        KernelVersion: os.release(),
      };
      // Docker has a client and a server; scripts ask for {{.Client.Version}} or {{.Server.Version}}.
      if (await printedAs(format, { ...about, Client: about, Server: about })) return;
      const lines = [
        ['Version:', about.Version],
        ['Bun version:', about.BunVersion],
        ['OS/Arch:', `${about.Os}/${about.Arch}`],
        ['Kernel version:', about.KernelVersion],
      ];
      print(`minirun:\n${lines.map(([name = '', value]) => ` ${name.padEnd(18)} ${value}\n`).join('')}`);
    });
}

/** Prints an object as `--format` asks; false when it does not ask for anything. */
async function printedAs(format: string | undefined, value: object): Promise<boolean> {
  if (format === undefined || format === '') return false;
  if (format === 'json') {
    print(`${JSON.stringify(value)}\n`);
    return true;
  }
  const { renderTemplate } = await import('./output/template.ts');
  print(`${renderTemplate(format, value)}\n`);
  return true;
}
