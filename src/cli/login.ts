import type { Command } from 'commander';
import { MinirunError } from '../errors.ts';
import type { Credentials, StoredAt } from '../image/registry/login.ts';
import { printable } from './output/printable.ts';
import { print } from './output/stdout.ts';

interface Options {
  username?: string;
  password?: string;
  passwordStdin?: boolean;
  tlsVerify?: string;
}

/** `minirun login [REGISTRY]` */
export function registerLogin(program: Command): void {
  program
    .command('login')
    .summary('Log in to a registry')
    .description("Check a user's password with a registry and keep it in docker's config.json, for pulls and pushes")
    .argument('[registry]', 'host of the registry, as in image names', 'docker.io')
    .option('-u, --username <name>', 'the user')
    .option(
      '-p, --password <password>',
      'the password (everybody on this machine can read it: better use standard input)',
    )
    .option('--password-stdin', 'read the password from standard input')
    .option('--tls-verify <bool>', 'false: any certificate, and plain HTTP, will do (default: true)')
    .action(async (registry: string, options: Options) => {
      const { login, parseRegistry } = await import('../image/registry/login.ts');
      const host = parseRegistry(registry);
      const insecure = parseTlsVerify(options.tlsVerify);
      checkOptions(options);
      if (options.username === undefined && (await loggedInAgain(host, insecure))) return;
      const credentials = await askCredentials(host, options);
      warnOfStorage(await login(host, credentials, insecure));
      print('Login Succeeded\n');
    });
}

/** Whether certificates are not to be checked. */
function parseTlsVerify(value: string | undefined): boolean {
  if (value === undefined || value === 'true') return false;
  if (value === 'false') return true;
  throw new MinirunError(`invalid --tls-verify "${value}"`, 'it is neither true nor false', 'Write --tls-verify=false');
}

function checkOptions({ username, password, passwordStdin }: Options): void {
  const refuse = (why: string, remedy: string) => new MinirunError('cannot log in', why, remedy);
  if (password !== undefined && passwordStdin === true)
    throw refuse('--password and --password-stdin exclude each other', 'Leave one out');
  if (passwordStdin === true && username === undefined)
    throw refuse('--password-stdin needs to know the user', 'Add --username NAME');
  if (password !== undefined && username === undefined)
    throw refuse('--password needs to know the user', 'Add --username NAME');
  const isComplete = username !== undefined && (password !== undefined || passwordStdin === true);
  if (!isComplete && !process.stdin.isTTY) {
    throw refuse(
      'there is no terminal to ask on',
      'Use --username NAME --password-stdin, with the password on standard input',
    );
  }
  if (password !== undefined)
    process.stderr.write('WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n');
}

/** Tries the login that is here. */
async function loggedInAgain(host: string, insecure: boolean): Promise<boolean> {
  const { storedLogin, verifyLogin } = await import('../image/registry/login.ts');
  const stored = await storedLogin(host);
  if (stored === undefined) return false;
  process.stderr.write('Authenticating with existing credentials…\n');
  const { RegistryError } = await import('../image/registry/failure.ts');
  try {
    await verifyLogin(host, stored, insecure);
  } catch (error) {
    if (!(error instanceof RegistryError) || error.kind !== 'denied') throw error;
    process.stderr.write(`minirun: ${printable(error.message)}\n`);
    return false;
  }
  print('Login Succeeded\n');
  return true;
}

async function askCredentials(host: string, options: Options): Promise<Credentials> {
  const username = (options.username ?? (await ask(`Username for ${host}: `, true))).trim();
  const refuse = (why: string) => new MinirunError(`cannot log in to ${host}`, why);
  if (username === '') throw refuse('the user name is empty');
  // Basic authentication ends the name there.
  if (username.includes(':')) throw refuse('a user name has no colon');
  const password =
    options.password ?? (options.passwordStdin === true ? await readPassword() : await ask('Password: ', false));
  if (password === '') throw refuse('the password is empty');
  return { username, password };
}

/** Standard input to its end, without the line's end. */
async function readPassword(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks)
    .toString()
    .replace(/\r?\n$/, '');
}

/** Asks on the terminal; what is typed shows only with `echo`. */
async function ask(question: string, echo: boolean): Promise<string> {
  const { createInterface } = await import('node:readline');
  const { Writable } = await import('node:stream');
  const output = new Writable({
    write: (chunk: Buffer, _, done) => {
      if (echo) process.stderr.write(chunk);
      done();
    },
  });
  const terminal = createInterface({ input: process.stdin, output, terminal: true });
  // Only now: the terminal itself shows what is typed until here.
  process.stderr.write(question);
  try {
    return await new Promise<string>((resolve, reject) => {
      terminal.once('line', resolve);
      terminal.once('SIGINT', () => terminal.close());
      terminal.once('close', () =>
        reject(new MinirunError('cannot log in', 'it was cancelled', undefined, { code: 130 })),
      );
    });
  } finally {
    terminal.close();
    process.stdin.pause();
    if (!echo) process.stderr.write('\n');
  }
}

function warnOfStorage(stored: StoredAt): void {
  if ('helper' in stored) return;
  process.stderr.write(
    `WARNING! Your credentials are stored unencrypted in '${stored.file}'. docs/registries.md shows how to use a credential helper.\n`,
  );
}
