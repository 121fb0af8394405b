import type { Definition } from './definition.ts';
import { loggerArgv, streamEnd } from './logger.ts';
import { containerFiles } from './store.ts';
import { LogPipe } from '../host/launch.ts';

/**
 * The log of a container in the foreground: the same files that a detached one has. A logger is started with the
 * first byte, so a command without output pays nothing. A container that is removed at its end keeps no log.
 */
export class ForegroundLog {
  private readonly pipes = new Map<string, LogPipe>();
  private enabled: boolean;
  private readonly directory: string;

  constructor(definition: Definition) {
    this.enabled = !definition.autoRemove;
    this.directory = containerFiles(definition.id).log;
  }

  write(stream: 'stdout' | 'stderr', chunk: Buffer): void {
    if (!this.enabled) return;
    let pipe = this.pipes.get(stream);
    if (pipe === undefined) {
      const argv = loggerArgv(`${this.directory}/${stream}`) ?? [
        'sh',
        '-c',
        'exec cat >>"$0"',
        `${this.directory}/plain`,
      ];
      try {
        pipe = new LogPipe(argv, this.directory);
      } catch {
        // The command is not to fail because the disk is full: it goes on without a log.
        this.enabled = false;
        return;
      }
      this.pipes.set(stream, pipe);
    }
    pipe.write(chunk);
  }

  /** Lets the loggers go, when nobody is going to wait for them: this process would not end before they do. */
  abandon(): void {
    for (const pipe of this.pipes.values()) pipe.abandon();
  }

  /** Resolves when everything is in the files. */
  async end(): Promise<void> {
    const plain = loggerArgv('') === undefined;
    await Promise.all([...this.pipes.values()].map((pipe) => pipe.end(plain ? '' : `${streamEnd}\n`)));
  }
}
