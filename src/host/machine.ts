import fs from 'node:fs';

/**
 * A *machine in small* is what an ordinary user's minirun works in (docs/adr/0015): namespaces in which the user is root.
 * Everything below is read from inside; `src/rootless/` makes it and ends it.
 */
export interface SmallMachine {
  /** Says that these are other namespaces than before, as the kernel's boot id does for a boot. */
  boot: string;
  /** The user's id and name outside. */
  uid: number;
  user: string;
  /** Where slirp4netns takes its orders to publish ports; absent where there is none. */
  portSocket?: string;
}

/** In a /run of its own: on the real machine only root could write it. */
const machineFile = '/run/minirun-machine.json';

let known: { machine: SmallMachine | undefined } | undefined;

/** The machine in small that this process is in; undefined on the real machine. */
export function smallMachine(): SmallMachine | undefined {
  known ??= { machine: read() };
  return known.machine;
}

function read(): SmallMachine | undefined {
  try {
    return JSON.parse(fs.readFileSync(machineFile, 'utf8')) as SmallMachine;
  } catch {
    return undefined;
  }
}
