import fs from 'node:fs';

/** Tells when something happens in directories. Those that do not exist, and what inotify misses, show by the clock. */
export class Changes {
  private readonly watchers = new Map<string, fs.FSWatcher>();
  private wake: (() => void) | undefined;
  private happened = false;

  constructor(...directories: readonly string[]) {
    for (const directory of directories) this.watch(directory);
  }

  /** Also tells of this directory; does nothing when it is watched already or does not exist. */
  watch(directory: string): void {
    if (this.watchers.has(directory)) return;
    try {
      const watcher = fs.watch(directory, () => this.notice());
      watcher.on('error', () => this.notice());
      this.watchers.set(directory, watcher);
    } catch {
      // It does not exist yet, or the user has no inotify watches left: the clock will do.
    }
  }

  /** Takes it that something has happened: ends a waiting. */
  notice(): void {
    this.happened = true;
    this.wake?.();
  }

  /** Resolves at the next change since this was called last, or after so many milliseconds. */
  async next(milliseconds: number): Promise<void> {
    if (!this.happened) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.wake = undefined;
    this.happened = false;
  }

  end(): void {
    for (const watcher of this.watchers.values()) watcher.close();
  }
}
