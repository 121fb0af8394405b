/**
 * Shows that each test of a lesson (docs/security.md) can fail: switches its protection off in a copy of the sources,
 * builds that, runs the test, and says whether it failed.
 *
 *     npm run switched-off [-- PART OF A NAME]
 *
 * Exits with 1 when a test passes without its protection, or when a protection is not where this file looks for it.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

interface Change {
  file: string;
  /** Stands there exactly once. */
  from: string;
  to: string;
}

interface Lesson {
  /** File of the test, below test/. */
  test: string;
  /** The protection, in words. */
  without: string;
  changes: Change[];
}

const change = (file: string, from: string, to = ''): Change => ({ file, from, to });

const lessons: Lesson[] = [
  {
    test: 'security/lessons/own-binary.test.ts',
    without: 'the read-only mount of minirun’s own binary',
    changes: [
      change(
        'src/init/mounts.ts',
        'export function protectOwnBinary(): void {',
        'export function protectOwnBinary(): void {\n  if (process.argv.length > 0) return;',
      ),
    ],
  },
  {
    test: 'security/lessons/descriptors.test.ts',
    without: 'close-on-exec of everything beyond 2',
    changes: [change('src/init/become.ts', '  libc.closeOnExecFrom(3);\n')],
  },
  {
    test: 'security/lessons/descriptors.test.ts',
    without: 'the container’s own null device as standard input',
    changes: [change('src/init/streams.ts', 'openNull(dev, fs.constants.O_RDONLY)', "fs.openSync('/dev/null', 'r')")],
  },
  {
    test: 'security/lessons/hostile-root.test.ts',
    without: 'the look at what /dev/null is',
    changes: [
      change(
        'src/init/mounts.ts',
        'stat?.isCharacterDevice() !== true || stat.rdev !== nullDevice',
        'stat === undefined',
      ),
      change(
        'src/init/streams.ts',
        'return stat.isCharacterDevice() && stat.rdev === nullDevice;',
        'return stat.rdev >= 0;',
      ),
    ],
  },
  {
    test: 'security/lessons/hostile-root.test.ts',
    without: 'the look whether /proc is proc before a sysctl is written',
    changes: [change('src/init/mounts.ts', '.type !== procMagic', '.type === 0')],
  },
  {
    test: 'security/lessons/linked-system-directories.test.ts',
    without: 'the refusal of system directories that are links',
    changes: [change('src/init/mounts.ts', 'this.refuseLinkedSystemPath(destination);')],
  },
  {
    test: 'security/lessons/exec-capabilities.test.ts',
    without: 'an empty inheritable set',
    changes: [
      change(
        'src/init/become.ts',
        'libc.setCapabilities(isRoot ? effective : 0n, isRoot ? permitted : 0n, inheritable);',
        'libc.setCapabilities(effective, permitted, permitted);',
      ),
    ],
  },
  {
    test: 'security/copy.test.ts',
    without: 'entering the container’s root before a path is looked at',
    changes: [change('src/init/archive.ts', '  libc.chroot(`/proc/self/fd/${fd}`);\n')],
  },
  {
    test: 'security/lessons/nothing-from-the-root.test.ts',
    without: 'a command search by stat alone: a library of the root is opened',
    changes: [
      change(
        'src/init/become.ts',
        'const user = resolveUser(target.user.username, target.user.additionalGroups);',
        "try { fs.readFileSync('/lib/libnss_files.so.2'); } catch {}\n  const user = resolveUser(target.user.username, target.user.additionalGroups);",
      ),
    ],
  },
  {
    test: 'security/layers.test.ts',
    // Not the root in which layers are unpacked: without that the test would write to this machine.
    without: 'the refusal of names that lead out of the archive',
    changes: [
      change('src/init/unpack.ts', "if (clean === '..' || clean.startsWith('../')) {", "if (clean === '....') {"),
    ],
  },
  {
    test: 'security/lessons/digests.test.ts',
    without: 'the check of what a digest looks like',
    changes: [
      change('src/image/reference.ts', 'return match !== null && ', 'return text.length >= 0 || match === null || '),
    ],
  },
  {
    test: 'security/lessons/ids.test.ts',
    without: 'the bound of 31 bits',
    changes: [
      change('src/init/user.ts', 'const largestId = 2 ** 31 - 1;', 'const largestId = 2 ** 32;'),
      change('src/container/options.ts', 'Number(part) > 2 ** 31 - 1', 'Number(part) > 2 ** 32'),
    ],
  },
  {
    test: 'security/lessons/ids.test.ts',
    without: 'setting the supplementary groups',
    changes: [
      change('src/init/libc.ts', "  syscall('setgroups', undefined, groups.length, ptr(list));\n", '  ptr(list);\n'),
    ],
  },
  {
    test: 'security/lessons/passwd-files.test.ts',
    without: 'O_NOFOLLOW and O_NONBLOCK',
    changes: [
      change(
        'src/init/user.ts',
        'fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK',
        'fs.constants.O_RDONLY',
      ),
    ],
  },
  {
    test: 'security/lessons/state-directories.test.ts',
    without: 'mode 0700',
    changes: [change('src/state/paths.ts', 'recursive: true, mode: 0o700', 'recursive: true')],
  },
  {
    test: 'security/lessons/router-advertisements.test.ts',
    without: 'accept_ra=0 in the container',
    changes: [change('src/network/attach.ts', "}.accept_ra`, value: '0'", "}.accept_ra`, value: '1'")],
  },
  {
    test: 'security/lessons/credentials.test.ts',
    without: 'dropping credentials when a redirect leads to another host',
    changes: [change('src/image/registry/transport.ts', '    isAtHome &&= url.origin === first.origin;\n')],
  },
  {
    test: 'security/lessons/terminal.test.ts',
    without: 'a session of its own',
    changes: [change('src/init/become.ts', '  libc.startSession();\n')],
  },
  {
    test: 'security/syscalls.test.ts',
    without: 'the seccomp filter',
    changes: [
      change('src/init/become.ts', '    if (filter !== undefined) libc.loadSeccomp(filter.program, filter.flags);\n'),
    ],
  },
  {
    test: 'e2e/security-options.test.ts',
    without: 'hiding files of the kernel',
    changes: [
      change(
        'src/init/mounts.ts',
        'mask(masked: string): void {',
        'mask(masked: string): void {\n    if (masked) return;',
      ),
    ],
  },
  {
    test: 'security/mounts.test.ts',
    without: 'the look whether a link or another mount is in the way of a sysctl',
    changes: [
      change(
        'src/init/libc.ts',
        'const beneathWithoutLinksAndMounts = 0x08 | 0x04 | 0x01;',
        'const beneathWithoutLinksAndMounts = 0x10;',
      ),
    ],
  },
  {
    test: 'security/mounts.test.ts',
    without: 'places that are looked up inside the root',
    changes: [change('src/init/libc.ts', 'const RESOLVE_IN_ROOT = 0x10;', 'const RESOLVE_IN_ROOT = 0;')],
  },
];

const repository = path.resolve(import.meta.dir, '../..');
const wanted = process.argv[2] ?? '';
const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-switched-off-'));
let wrong = 0;
try {
  for (const lesson of lessons) {
    if (!lesson.test.includes(wanted)) continue;
    const verdict = tryWithout(lesson);
    if (!verdict.startsWith('fails')) wrong++;
    process.stdout.write(`${lesson.test}: without ${lesson.without}: ${verdict}\n`);
  }
} finally {
  fs.rmSync(copy, { recursive: true, force: true });
}
process.exit(wrong === 0 ? 0 : 1);

function tryWithout({ test, changes }: Lesson): string {
  const tree = path.join(copy, 'tree');
  fs.rmSync(tree, { recursive: true, force: true });
  fs.mkdirSync(tree);
  for (const part of ['bin', 'images', 'package.json', 'package-lock.json', 'src', 'test', 'tsconfig.json'])
    fs.cpSync(path.join(repository, part), path.join(tree, part), { recursive: true });
  fs.symlinkSync(path.join(repository, 'node_modules'), path.join(tree, 'node_modules'));
  for (const { file, from, to } of changes) {
    const place = path.join(tree, file);
    const text = fs.readFileSync(place, 'utf8');
    if (text.split(from).length !== 2) return `NOT TRIED: ${file} does not have it exactly once: ${from}`;
    fs.writeFileSync(
      place,
      text.replace(from, () => to),
    );
  }
  const build = spawnSync(path.join(tree, 'bin/build'), { cwd: tree, encoding: 'utf8' });
  if (build.status !== 0) return `NOT TRIED: it does not build: ${build.stderr.trim().split('\n').at(-1)}`;
  const command = ['test', '--timeout', '60000', `./test/${test}`];
  const env = { ...process.env, MINIRUN_TEST_MUST_RUN: '1', MINIRUN_BIN: path.join(tree, 'dist/minirun') };
  const run = spawnSync(process.execPath, command, { cwd: tree, encoding: 'utf8', env, timeout: 300_000 });
  const failed = [...`${run.stdout}${run.stderr}`.matchAll(/^\(fail\) (.*?)(?: \[|$)/gm)].map(([, title]) => title);
  if (run.status === 0) return 'PASSES';
  return failed.length > 0 ? `fails: ${failed.join('; ')}` : `NOT SEEN: ended with ${run.status}`;
}
