import { type Command, Option } from 'commander';
import type { Audited } from '../container/audit.ts';
import { MinirunError } from '../errors.ts';
import { printable } from './output/printable.ts';
import type { Pruned } from './output/pruned.ts';
import { print } from './output/stdout.ts';

/** `minirun system COMMAND` */
export function registerSystem(program: Command): void {
  const system = program.command('system').summary('Show, check and clean up what minirun keeps on the disk');
  registerDf(system);
  registerPrune(system);
  registerCheck(system);
  registerReconcile(system);
}

function registerDf(system: Command): void {
  system
    .command('df')
    .summary('Show what takes how much of the disk')
    .option('-v, --verbose', 'each image, container, volume and archive')
    .option('--format <format>', '"table", "table TEMPLATE", "json" or a Go template')
    .action(async ({ verbose, format }: { verbose?: boolean; format?: string }) => {
      if (verbose === true && format !== undefined) {
        throw new MinirunError('-v and --format exclude each other', undefined, 'Leave one of them out');
      }
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { summaryOf, detailsOf } = await import('./output/disk.ts');
      print(verbose === true ? await detailsOf() : await summaryOf(format));
    });
}

interface PruneOptions {
  all?: boolean;
  force?: boolean;
  volumes?: boolean;
}

function registerPrune(system: Command): void {
  system
    .command('prune')
    .summary('Remove everything that is not used')
    .description('Remove containers that do not run, networks without containers, and images without a name')
    .option('-a, --all', 'also images with a name that no container uses')
    .option('-f, --force', 'do not ask')
    .option('--volumes', 'also anonymous volumes that no container has')
    .action(async ({ all = false, force = false, volumes = false }: PruneOptions) => {
      const { confirmed } = await import('./output/question.ts');
      const parts = [
        'all stopped containers',
        'all networks not used by at least one container',
        ...(volumes ? ['all anonymous volumes not used by at least one container'] : []),
        all ? 'all images without at least one container associated to them' : 'all dangling images',
      ];
      const warning = `This will remove:\n${parts.map((part) => `  - ${part}\n`).join('')}`;
      if (!force && !(await confirmed(warning))) return;
      const { reconcileFirst } = await import('./each.ts');
      await reconcileFirst();
      const { printPruned } = await import('./output/pruned.ts');
      const { pruneContainers, pruneVolumes } = await import('../container/prune.ts');
      let reclaimed = await printPruned('Deleted Containers', pruneContainers());
      await printPruned('Deleted Networks', pruneNetworks());
      if (volumes) reclaimed += await printPruned('Deleted Volumes', pruneVolumes());
      const { pruneImages } = await import('../image/collect.ts');
      const { imageUser } = await import('../container/image-users.ts');
      const { unwanted } = await import('./output/prune.ts');
      const isUnwanted = await unwanted({ all, filter: [] });
      const removal = await pruneImages((id, names) => !isUnwanted(id, names), imageUser());
      const { printRemoval } = await import('./output/removal.ts');
      const { humanSize } = await import('./output/units.ts');
      printRemoval(removal);
      print(`Total reclaimed space: ${humanSize(reclaimed + removal.reclaimed)}\n`);
    });
}

async function* pruneNetworks(): AsyncGenerator<Pruned> {
  const { finishInterruptedChanges, removeNetwork } = await import('../network/manage.ts');
  const { listNetworks } = await import('../network/store.ts');
  const { readContainer } = await import('../container/store.ts');
  await finishInterruptedChanges();
  for (const { name, automatic, leases } of listNetworks()) {
    if (automatic || Object.keys(leases).length > 0) continue;
    try {
      await removeNetwork(name, (id) => readContainer(id)?.definition.name ?? id.slice(0, 12));
      yield { name, size: 0 };
    } catch (error) {
      if (!(error instanceof MinirunError)) throw error;
      yield error;
    }
  }
}

/** `1 image`, `2 images` */
function counted(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function registerCheck(system: Command): void {
  system
    .command('check')
    .summary('Check that the images on the disk are whole')
    .description(
      'Check that everything in the image store is there and is what its digest says, and that nothing lies there that nobody needs. Unpacked files are not compared',
    )
    .option('--quick', 'do not read archives')
    .option('--repair', 'remove what is damaged, so that the next pull gets it again, and what nobody needs')
    .action(async (options: { quick?: boolean; repair?: boolean }) => {
      const { checkImages, repairImages } = await import('../image/check.ts');
      const { interruptible } = await import('../image/interrupt.ts');
      const result = await interruptible(async (signal) => checkImages({ quick: options.quick, signal }));
      const { images, layers, archives } = result;
      const counts = [counted(images, 'image'), counted(layers, 'layer'), counted(archives, 'archive')].join(', ');
      let left = result.problems;
      if (options.repair === true && left.length > 0) {
        const { reconcileFirst } = await import('./each.ts');
        await reconcileFirst();
        const { imageUser } = await import('../container/image-users.ts');
        left = await repairImages(result.problems, imageUser());
        for (const { what } of result.problems.filter(
          (problem) => !left.some(({ what: other }) => other === problem.what),
        ))
          print(`repaired: ${what}\n`);
      }
      for (const { what, remedy } of left) print(`${what}. ${remedy}.\n`);
      if (left.length > 0) process.exitCode = 1;
      else if (result.problems.length === 0) print(`${counts}: no damage\n`);
    });
}

function registerReconcile(system: Command): void {
  system
    .command('reconcile')
    .summary('Compare what is on record with what is there, and mend it')
    .description(
      'Compare what is on record with what is there: processes, namespaces, interfaces, addresses, routes, firewall, name servers, files. What a running container lacks is put back, what is nobody’s is taken away; what is not of minirun and of this state directory for certain is left alone. Exit code 1 when something could not be mended',
    )
    .option('-n, --dry-run', 'only say what would be done')
    .option('--format <format>', '"json" for a list of objects')
    .addOption(new Option('--due', 'only those idle networks whose time has come').hideHelp())
    .action(async ({ due, dryRun, format }: { due?: boolean; dryRun?: boolean; format?: string }) => {
      if (due === true) return reconcileDue();
      if (format !== undefined && format !== 'json') {
        throw new MinirunError(
          `invalid --format "${format}"`,
          'reconcile has none of that name',
          'Give json, or leave it out',
        );
      }
      const { audit } = await import('../container/audit.ts');
      // Each file is looked at, so that damage does not come to light only when the file is needed.
      const { readEverything, settleDamage } = await import('../container/heal.ts');
      readEverything();
      const damage = dryRun === true ? [] : await settleDamage();
      for (const line of damage) process.stderr.write(`minirun: warning: ${printable(line)}\n`);
      const findings = await audit({ dryRun });
      if (format === 'json') print(`${JSON.stringify(findings, null, 2)}\n`);
      else {
        print(
          findings.length === 0 ? 'nothing to mend\n' : findings.map((each) => `${printable(lineOf(each))}\n`).join(''),
        );
      }
      if (findings.some(({ result }) => result === 'failed')) process.exitCode = 1;
    });
}

/** `network lab: 2 firewall rules are missing: put back` */
function lineOf({ kind, name, problem, remedy, result, error }: Audited): string {
  const what = `${kind} ${name}: ${problem}`;
  if (result === 'done') return `${what}: ${remedy}`;
  if (result === 'would') return `${what}: would be ${remedy}`;
  return `${what}: COULD NOT BE ${remedy}${error === undefined ? '' : `: ${error}`}`;
}

/** What a waiting `sh` becomes some seconds after the last container of a network has ended. */
async function reconcileDue(): Promise<void> {
  const { reconcile } = await import('../container/reconcile.ts');
  const problems = await reconcile('due');
  for (const problem of problems) process.stderr.write(`minirun: ${printable(problem)}\n`);
  if (problems.length > 0) process.exitCode = 1;
}
