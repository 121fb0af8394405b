import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/** Makes the root filesystem that every tool gets: this machine's static busybox with all its applets. */
export function makeRootfs(directory: string): { rootfs: string; tarball: string } {
  const busybox = Bun.which('busybox');
  if (busybox === null) throw new Error('busybox is not installed (package busybox-static)');
  const rootfs = path.join(directory, 'rootfs');
  for (const folder of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp']) {
    fs.mkdirSync(path.join(rootfs, folder), { recursive: true });
  }
  fs.copyFileSync(busybox, path.join(rootfs, 'bin/busybox'));
  fs.chmodSync(path.join(rootfs, 'bin/busybox'), 0o755);
  for (const applet of execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n')) {
    if (applet !== 'busybox') fs.symlinkSync('busybox', path.join(rootfs, 'bin', applet));
  }
  fs.writeFileSync(path.join(rootfs, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  fs.writeFileSync(path.join(rootfs, 'etc/group'), 'root:x:0:\n');
  const tarball = path.join(directory, 'rootfs.tar');
  execFileSync('tar', ['-C', rootfs, '-cf', tarball, '.']);
  return { rootfs, tarball };
}
