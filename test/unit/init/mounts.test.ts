import { describe, expect, test } from 'bun:test';
import { parseOptions } from '../../../src/init/mounts.ts';

// From linux/mount.h.
const ro = 1;
const nosuid = 2;
const nodev = 4;
const noexec = 8;
const bind = 4096;
const rec = 16384;
const privately = 1 << 18;
const slave = 1 << 19;
const shared = 1 << 20;
const strictatime = 1 << 24;

describe('options of mount(8)', () => {
  test('flags', () => {
    expect(parseOptions(['ro', 'nosuid', 'nodev', 'noexec']).flags).toBe(ro | nosuid | nodev | noexec);
    expect(parseOptions(['rbind']).flags).toBe(bind | rec);
    expect(parseOptions(['bind', 'ro']).flags).toBe(bind | ro);
    expect(parseOptions(['nosuid', 'strictatime']).flags).toBe(nosuid | strictatime);
  });

  test('the rest is for the filesystem, in its order', () => {
    const { flags, data } = parseOptions(['nosuid', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']);
    expect(flags).toBe(nosuid);
    expect(data).toBe('newinstance,ptmxmode=0666,mode=0620,gid=5');
  });

  test('what mount(8) has as the absence of a flag is neither', () => {
    expect(parseOptions(['rw', 'suid', 'dev', 'exec', 'defaults'])).toEqual({ flags: 0, propagation: 0, data: '' });
  });

  // The kernel takes a change of propagation only in a call of its own.
  test.each([
    ['rprivate', privately | rec],
    ['private', privately],
    ['rslave', slave | rec],
    ['rshared', shared | rec],
  ])('propagation apart from the flags: %s', (option, propagation) => {
    expect(parseOptions(['rbind', option])).toEqual({ flags: bind | rec, propagation, data: '' });
  });

  test('a name that every object of JavaScript has is no flag', () => {
    expect(parseOptions(['constructor', 'toString'])).toEqual({
      flags: 0,
      propagation: 0,
      data: 'constructor,toString',
    });
  });
});
