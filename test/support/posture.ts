import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { Machine, Running } from './machine.ts';
import type { World } from './world.ts';

/** What a container answered: what was asked, and the answer. */
export type Answers = Record<string, string>;

/** What `npm run bench -- posture` found, on one machine: `test/bench/results/posture.json`. */
export interface Recorded {
  date: string;
  machine: string;
  /** By column: `minirun`, `docker`, … with `, user` and `, userns`. */
  columns: Record<string, Answers>;
}

export const recordedFile = path.resolve(import.meta.dir, '../bench/results/posture.json');

/** The user of the columns `user`. */
export const ordinaryUser = '1000:1000';

/** The probe as one file, the program that runs it, and what that needs: mounts for any runtime's `-v`. */
export class Posture {
  private constructor(
    private readonly directory: string,
    private readonly host: Record<string, string>,
    private readonly witnesses: Running[],
  ) {}

  /** Makes the probe, and on the world's host a process and an abstract socket that no container may see. */
  static async prepare(world: World, name = 'posture'): Promise<Posture> {
    const directory = path.join(world.directory, name);
    fs.mkdirSync(directory);
    const built = await Bun.build({
      entrypoints: [path.join(import.meta.dir, 'posture-probe.ts')],
      target: 'bun',
      outdir: directory,
    });
    if (!built.success) throw new Error(built.logs.map(({ message }) => message).join('\n'));
    fs.chmodSync(directory, 0o755);
    const abstract = `${name}-${path.basename(world.directory)}`;
    const script = `require('node:net').createServer().listen('\\0${abstract}', () => console.log('listening'))`;
    const witness = await world.host.spawn([process.execPath, '-e', script, 'posture-witness'], {
      timeout: 2 ** 31 - 1,
    });
    await witness.waitFor('listening');
    const kinds = ['net', 'pid', 'mnt', 'uts', 'ipc', 'cgroup', 'user'];
    const links = await world.host.sh(`cd /proc/self/ns; readlink ${kinds.join(' ')}`);
    const host = Object.fromEntries(
      links
        .trim()
        .split('\n')
        .map((link) => [link.split(':')[0] as string, link]),
    );
    return new Posture(directory, { ...host, abstract }, [witness]);
  }

  /** Words for `run`, before the image, which may be any without libraries of its own; and after it. */
  get mounts(): string[] {
    const program = fs.realpathSync(process.execPath);
    return [...librariesOf(program), '-v', `${program}:/bun:ro`, '-v', `${this.directory}:/posture:ro`];
  }

  get command(): string[] {
    return ['/bun', '/posture/posture-probe.js', JSON.stringify(this.host)];
  }

  /** @param run words of `run` with its options, without mounts and image */
  async ask(machine: Machine, run: readonly string[], image: string): Promise<Answers> {
    const { stdout, stderr, code } = await machine.run([...run, ...this.mounts, image, ...this.command], {
      timeout: 120_000,
    });
    if (code !== 0) throw new Error(`${run.join(' ')}: ${stderr.trim() || `exit code ${code}`}`);
    return JSON.parse(stdout) as Answers;
  }

  async end(): Promise<void> {
    for (const witness of this.witnesses) {
      witness.kill('SIGKILL');
      await witness.exit;
    }
  }
}

/** Words for `run` that give a container the libraries that a program of this machine needs. */
export function librariesOf(program: string): string[] {
  const files = execFileSync('ldd', [program], { encoding: 'utf8' }).matchAll(/(\/\S+\/)[^/\s]+ \(0x/g);
  const folders = [...new Set([...files].map(([, folder]) => (folder as string).replace(/\/$/, '')))];
  return folders.flatMap((folder) => ['-v', `${fs.realpathSync(folder)}:${folder}:ro`]);
}

/** Answers by which the kernel, or who set the container up, says no. */
const refusals = new Set([
  'EPERM',
  'EACCES',
  'ENOSYS',
  'EROFS',
  'EAFNOSUPPORT',
  'EPROTONOSUPPORT',
  'absent',
  'hidden',
  'none here',
  'no',
]);

/** Whether the first answer lets a container do more than the second one. */
function isWeaker(question: string, answer: string, other: string): boolean {
  if (question.startsWith('status Cap')) return (BigInt(`0x${answer}`) & ~BigInt(`0x${other}`)) !== 0n;
  if (question === 'status NoNewPrivs' || question === 'status Seccomp') return Number(answer) < Number(other);
  if (question.startsWith('namespace ')) return answer === 'the host’s' && other !== answer;
  if (question === 'list /dev') return added(answer, other).length > 0;
  if (question === 'descriptors left open') return answer !== 'none' && other === 'none';
  return !refusals.has(answer) && refusals.has(other);
}

/**
 * Where podman gives less than docker and minirun by choice: its default capabilities have no NET_RAW and no AUDIT_WRITE.
 * minirun keeps docker's: `ping` and `tcpdump` are what containers of a network lab run.
 */
const chosen = {
  capabilities: (1n << 13n) | (1n << 29n),
  questions: ['call socket AF_PACKET', 'call socket raw ICMP', 'call socket ping'],
};

/** Where a column of minirun's is weaker than that of another tool, a line each, without what was chosen. */
export function weaknesses(columns: Record<string, Answers>): string[] {
  return Object.entries(columns).flatMap(([column, answers]) => {
    if (!column.startsWith('minirun')) return [];
    return ['docker', 'podman'].flatMap((tool) => {
      const other = columns[column.replace('minirun', tool)];
      if (other === undefined) return [];
      return Object.entries(answers)
        .filter(([question, answer]) => {
          const theirs = other[question] ?? answer;
          if (tool === 'podman' && chosen.questions.includes(question)) return false;
          const allowed = tool === 'podman' && question.startsWith('status Cap') ? withChosen(theirs) : theirs;
          return isWeaker(question, answer, allowed);
        })
        .map(([question, answer]) => `${column}: ${question}: ${answer}, ${tool}: ${other[question]}`);
    });
  });
}

function withChosen(capabilities: string): string {
  return (BigInt(`0x${capabilities}`) | chosen.capabilities).toString(16);
}

function added(list: string, other: string): string[] {
  const known = new Set(other.split(' '));
  return list.split(' ').filter((name) => !known.has(name));
}

/** The table of docs/security.md. */
export function renderPosture({ columns }: Recorded): string {
  const names = Object.keys(columns);
  const questions = Object.keys(columns[names[0] as string] as Answers);
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    row(['', ...names]),
    row(['', ...names].map(() => '---')),
    ...questions.map((question) => row([question, ...names.map((name) => columns[name]?.[question] ?? 'not asked')])),
  ].join('\n');
}
