import { type Child, launch } from '../host/launch.ts';

/**
 * The guard: a shell in a session of its own, so that what ends minirun's process group leaves it alone. It puts the
 * terminal back when minirun ends without a word, and only as long as the terminal is still as minirun made it: by then
 * the user's shell may have set it for its own line editor, or a next minirun for its container.
 */
const guardScript = `
trap '' HUP INT QUIT TERM TSTP TTIN TTOU PIPE
saved=$(stty -g) || exit
echo '{}' >&3
read -r word <&3 || exit
raw=$(stty -g)
read -r word <&3 && exit
[ "$(stty -g)" = "$raw" ] && stty "$saved"`;

/** The user's terminal in raw mode: what is typed reaches the container as it is. It is put back even after a SIGKILL. */
export class RawTerminal {
  private readonly guard: Child = launch(['sh', '-c', guardScript], {}, 0);
  private state: 'waiting' | 'raw' | 'left' = 'waiting';

  /** Makes the terminal raw as soon as the guard knows how it was. */
  async enter(): Promise<void> {
    await this.guard.receive();
    if (this.state !== 'waiting') return;
    this.state = 'raw';
    process.stdin.setRawMode(true);
    this.guard.send('raw');
  }

  /** Puts the terminal back, and dismisses the guard. */
  leave(): void {
    if (this.state === 'raw') {
      process.stdin.setRawMode(false);
      this.guard.send('left');
    } else {
      this.guard.release();
    }
    this.state = 'left';
  }
}
