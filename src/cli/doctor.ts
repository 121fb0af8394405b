import type { Command } from 'commander';
import type { Check } from '../doctor/diagnose.ts';
import { print, stdoutStream } from './output/stdout.ts';

/** `minirun doctor` */
export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .summary('check what this machine has and lacks')
    .description(
      'Check what this machine has and lacks, with remedies; exit code 1 when something is missing. Changes nothing',
    )
    .option('--format <format>', 'json for a list of objects')
    .action(async ({ format }: { format?: string }) => {
      const { MinirunError } = await import('../errors.ts');
      if (format !== undefined && format !== 'json') {
        throw new MinirunError(
          `invalid --format "${format}"`,
          'doctor has none of that name',
          'Give json, or leave it out',
          { code: 125 },
        );
      }
      const { diagnose } = await import('../doctor/diagnose.ts');
      const checks = await diagnose();
      if (format === 'json') print(`${JSON.stringify(checks, null, 2)}\n`);
      else print(await report(checks));
      if (checks.some(({ status }) => status === 'missing')) process.exitCode = 1;
    });
}

const labels = { ok: 'ok', warning: 'warning', missing: 'MISSING' };
const colours = { ok: 'green', warning: 'yellow', missing: 'red' } as const;

/** One line a check: `ok      iproute2 6.1.0`, `MISSING iptables: not installed → apt-get install iptables`. */
async function report(checks: readonly Check[]): Promise<string> {
  const { styleText } = await import('node:util');
  const inColour = stdoutStream().isTTY && !process.env.NO_COLOR;
  const lines = checks.map(({ name, status, found, remedy }) => {
    const label = labels[status].padEnd(labels.warning.length);
    const text = status === 'ok' ? `${name} ${found}`.trimEnd() : `${name}: ${found}`;
    return `${inColour ? styleText(colours[status], label) : label} ${text}${remedy === undefined ? '' : ` → ${remedy}`}\n`;
  });
  return lines.join('');
}
