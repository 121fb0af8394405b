import type { Command } from 'commander';
import { print } from './output/stdout.ts';

/** `minirun logout [REGISTRY]` */
export function registerLogout(program: Command): void {
  program
    .command('logout')
    .summary('Forget the login for a registry')
    .description("Remove the login for a registry from docker's config.json and its credential helper")
    .argument('[registry]', 'host of the registry, as in image names', 'docker.io')
    .action(async (registry: string) => {
      const { logout, parseRegistry } = await import('../image/registry/login.ts');
      const host = parseRegistry(registry);
      const wasLoggedIn = await logout(host);
      print(wasLoggedIn ? `Removing login credentials for ${host}\n` : `Not logged in to ${host}\n`);
    });
}
