import { type Child, launch } from '../host/launch.ts';
import { terminalSettings } from '../host/terminal.ts';

/**
 * The guard: a shell in a session of its own, so that what ends minirun's process group leaves it alone. It puts the
 * terminal back when minirun ends without a word, and only as long as the terminal is still as minirun made it: by then
 * the user's shell may have set it for its own line editor, or a next minirun for its container.
 */
const guardScript = `
trap '' HUP INT QUIT TERM TSTP TTIN TTOU PIPE
read -r word <&3 || { stty "$1"; exit; }
raw=$(stty -g)
read -r word <&3 && exit
[ "$(stty -g)" = "$raw" ] && stty "$1"`;

/** The user's terminal in raw mode: what is typed reaches the container as it is. It is put back even after a SIGKILL. */
export class RawTerminal {
  private readonly guard: Child | undefined;

  /**
   * To be made before the command begins: a shell asks the terminal where the cursor is, and the answer must not be
   * echoed, nor wait for the end of a line.
   */
  constructor() {
    const settings = terminalSettings();
    if (settings !== undefined) this.guard = launch(['sh', '-c', guardScript, 'minirun-terminal', settings], {}, 0);
    process.stdin.setRawMode(true);
    this.guard?.send('raw');
  }

  /** Puts the terminal back, and dismisses the guard. */
  leave(): void {
    process.stdin.setRawMode(false);
    this.guard?.send('left');
  }
}
