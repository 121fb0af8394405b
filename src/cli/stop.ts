import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import { forEach, reconcileFirst } from './each.ts';

interface StopOptions {
  time?: string;
  timeout?: string;
  signal?: string;
}

function stopOptions(command: Command): Command {
  return command
    .argument('<container...>')
    .option('-t, --timeout <seconds>', 'seconds until SIGKILL; negative waits for ever')
    .option('--time <seconds>', 'the same')
    .option('-s, --signal <signal>', 'signal to send instead of the stop signal');
}

async function parsed(options: StopOptions): Promise<{ signal?: number; timeout?: number }> {
  const { parseSignal } = await import('../container/options.ts');
  const text = options.timeout ?? options.time;
  if (text !== undefined && !/^-?\d+$/.test(text)) {
    throw new MinirunError(`invalid timeout "${text}"`, 'it is no number of seconds', 'Give a whole number', {
      code: 125,
    });
  }
  return {
    timeout: text === undefined ? undefined : Number(text),
    signal: options.signal === undefined ? undefined : parseSignal(options.signal),
  };
}

export function registerStop(program: Command): void {
  stopOptions(program.command('stop').summary('Stop running containers')).action(
    async (names: string[], options: StopOptions) => {
      const how = await parsed(options);
      await reconcileFirst('index');
      const { stopContainer } = await import('../container/stop.ts');
      await forEach(names, (name) => stopContainer(name, how), { parallel: 8 });
    },
  );
}

export function registerRestart(program: Command): void {
  stopOptions(program.command('restart').summary('Stop and start containers')).action(
    async (names: string[], options: StopOptions) => {
      const how = await parsed(options);
      await reconcileFirst('index');
      const { stopContainer } = await import('../container/stop.ts');
      const { startDetached } = await import('../container/run.ts');
      const { requireContainer } = await import('../container/store.ts');
      const { recordContainer } = await import('../container/events.ts');
      await forEach(names, async (name) => {
        const { definition } = requireContainer(name);
        await stopContainer(name, how);
        await startDetached(definition.id, 'exited');
        recordContainer(definition, 'restart');
      });
    },
  );
}

export function registerKill(program: Command): void {
  program
    .command('kill')
    .summary('Send a signal to running containers')
    .argument('<container...>')
    .option('-s, --signal <signal>', 'signal to send', 'KILL')
    .action(async (names: string[], options: { signal: string }) => {
      const { parseSignal } = await import('../container/options.ts');
      const signal = parseSignal(options.signal);
      await reconcileFirst('index');
      const { killContainer } = await import('../container/stop.ts');
      await forEach(names, (name) => killContainer(name, signal), { parallel: 8 });
    });
}
