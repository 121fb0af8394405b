import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  checkProfile,
  confinement,
  confinementOfExec,
  explainConfinement,
  hasApparmor,
  loadedProfiles,
  planProfile,
  profileText,
  type ProfileFacts,
} from '../../../src/container/apparmor.ts';
import { renderScript } from '../../../src/host/script.ts';

const bare: ProfileFacts = { includes: new Set(), own: 'unconfined' };
const full: ProfileFacts = { ...bare, includes: new Set(['abi/3.0', 'tunables/global', 'abstractions/base']) };
const lines = (facts: ProfileFacts) =>
  profileText(facts)
    .split('\n')
    .map((line) => line.trim());

describe('the profile', () => {
  test('bars mounts, sockets that seccomp cannot see, and writing to the kernel’s files', () => {
    for (const line of [
      'deny mount,',
      'deny network alg,',
      'deny network vsock,',
      'deny @{PROC}/* w,',
      'deny @{PROC}/sys/[^k]** w,',
      'deny @{PROC}/sysrq-trigger rwklx,',
      'deny @{PROC}/kcore rwklx,',
      'deny /sys/firmware/** rwklx,',
      'deny /sys/kernel/security/** rwklx,',
    ])
      expect(lines(full)).toContain(line);
  });

  test('lets through what seccomp and capabilities leave', () => {
    for (const line of ['network,', 'capability,', 'file,', 'umount,', 'signal (receive) peer=unconfined,'])
      expect(lines(full)).toContain(line);
  });

  test('includes only what this machine has: the parser fails on a missing file', () => {
    expect(profileText(full)).toContain('abi <abi/3.0>,\n#include <tunables/global>\n');
    expect(profileText(full)).toContain('  #include <abstractions/base>\n');
    expect(profileText(bare)).not.toMatch(/abi <|#include/);
    expect(lines(bare)).toContain('@{PROC}=/proc/');
  });

  test('takes signals from a minirun that is confined itself', () => {
    expect(lines({ ...bare, own: 'my-shell' })).toContain('signal (receive) peer=my-shell,');
    expect(lines({ ...bare, own: 'a b"\n}' })).toContain('signal (receive) peer="a b');
    expect(lines(bare).filter((line) => line.startsWith('signal (receive)'))).toHaveLength(1);
  });

  test('is loaded by a step, which a script shows', () => {
    const step = planProfile('/state/apparmor', bare);
    expect(step.apply).toEqual([
      { tool: 'file', path: '/state/apparmor', content: profileText(bare), mode: 0o644 },
      { tool: 'run', argv: ['apparmor_parser', '--skip-cache', '--replace', '/state/apparmor'] },
    ]);
    const script = renderScript('x', [{ title: 'AppArmor', steps: [step] }]);
    expect(script).toContain('  apparmor_parser --skip-cache --replace /state/apparmor\n');
    expect(script).toContain('profile minirun-default flags=(attach_disconnected,mediate_deleted) {');
  });
});

describe('the machine', () => {
  let directory: string;
  beforeAll(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), 'minirun-apparmor-'));
  });
  afterAll(() => fs.rmSync(directory, { recursive: true }));
  const file = (name: string, content: string) => {
    const place = path.join(directory, name);
    fs.writeFileSync(place, content);
    return place;
  };
  const places = (enabled: string, securityfs = directory) => ({
    securityfs,
    enabled,
    loaded: '',
    own: '',
    includes: '',
  });

  test('has AppArmor when its files are there and it is on', () => {
    expect(hasApparmor(places(file('on', 'Y\n')))).toBe(true);
    expect(hasApparmor(places(file('off', 'N\n')))).toBe(false);
    expect(hasApparmor(places(path.join(directory, 'none')))).toBe(false);
    expect(hasApparmor(places(file('on', 'Y\n'), path.join(directory, 'none')))).toBe(false);
  });

  test('lists the profiles it has', () => {
    const list = file(
      'profiles',
      'minirun-default (enforce)\n/usr/sbin/named (complain)\nsnap.a (b) (enforce)\nx (kill)\n',
    );
    expect(loadedProfiles(list)).toEqual(['minirun-default', '/usr/sbin/named', 'snap.a (b)', 'x']);
    expect(loadedProfiles(path.join(directory, 'none'))).toEqual([]);
  });
});

describe('a container', () => {
  test('is unconfined when that was asked for, or when it is privileged', async () => {
    for (const asked of ['unconfined', undefined]) {
      expect(await confinement(asked, true)).toBeUndefined();
      expect(explainConfinement(asked, true)).toEqual({ sections: [] });
    }
    expect(await confinement('unconfined', false)).toBeUndefined();
    expect(confinementOfExec('unconfined', false)).toBeUndefined();
    expect(confinementOfExec('mine', true)).toBeUndefined();
    expect(() => checkProfile('unconfined')).not.toThrow();
  });

  test('keeps the profile that was asked for', () => {
    expect(confinementOfExec('mine', false)).toBe('mine');
    expect(explainConfinement('mine', true)).toEqual({ profile: 'mine', sections: [] });
  });

  test('does not run without the profile that was asked for', () => {
    expect(() => checkProfile('no-such-profile-here')).toThrow('cannot confine the container by AppArmor profile');
    expect(confinement('no-such-profile-here', false)).rejects.toThrow('AppArmor profile "no-such-profile-here"');
  });
});
