import { describe, expect, test } from 'bun:test';
import { parseSecurityOptions } from '../../../src/container/security-options.ts';
import { MinirunError } from '../../../src/errors.ts';

const none = { noNewPrivileges: false, mask: [], unmask: [] };
const parse = (...options: string[]) => parseSecurityOptions(options);

describe('--security-opt', () => {
  test('nothing', () => {
    expect(parse()).toEqual(none);
  });

  test.each([
    ['no-new-privileges', true],
    ['no-new-privileges:true', true],
    ['no-new-privileges=true', true],
    ['no-new-privileges=TRUE', true],
    ['no-new-privs', true],
    ['no-new-privileges=false', false],
    ['no-new-privs=false', false],
  ])('%s', (option, expected) => {
    expect(parse(option).noNewPrivileges).toBe(expected);
    expect(parse(`no-new-privileges=${!expected}`, option).noNewPrivileges).toBe(expected);
  });

  test.each<[string, object]>([
    ['seccomp=unconfined', { seccomp: 'unconfined' }],
    ['seccomp:unconfined', { seccomp: 'unconfined' }],
    ['seccomp=default', { seccomp: 'default' }],
    ['seccomp=builtin', { seccomp: 'default' }],
    ['seccomp=/etc/a=b:c.json', { seccomp: { file: '/etc/a=b:c.json' } }],
    ['seccomp:./p.json', { seccomp: { file: './p.json' } }],
    ['seccomp=./unconfined', { seccomp: { file: './unconfined' } }],
    ['apparmor=unconfined', { apparmor: 'unconfined' }],
    ['apparmor:docker-default', { apparmor: 'docker-default' }],
    ['apparmor=/usr/bin/thing//hat', { apparmor: '/usr/bin/thing//hat' }],
    ['label=disable', {}],
    ['label:disable', {}],
    ['mask=/proc/version:/etc//x/../y/', { mask: ['/proc/version', '/etc/y'] }],
    ['unmask=ALL', { unmask: ['ALL'] }],
    ['unmask=all', { unmask: ['ALL'] }],
    ['unmask=/proc/acpi:/sys/*', { unmask: ['/proc/acpi', '/sys/*'] }],
    ['systempaths=unconfined', { unmask: ['ALL'] }],
  ])('%s', (option, expected) => {
    expect(parse(option)).toEqual({ ...none, ...expected });
  });

  test('the last of several counts; paths add up', () => {
    expect(parse('seccomp=/a', 'seccomp=default', 'apparmor=a', 'apparmor=b')).toMatchObject({
      seccomp: 'default',
      apparmor: 'b',
    });
    expect(parse('mask=/a', 'mask=/b:/c', 'unmask=/d').mask).toEqual(['/a', '/b', '/c']);
  });

  test.each([
    '',
    '=',
    'seccomp',
    'seccomp=',
    'apparmor=',
    'apparmor=two words',
    'apparmor=a\nb',
    'label',
    'label=type:container_t',
    'label=disabled',
    'no-new-privileges=yes',
    'no-new-privileges=',
    'mask',
    'mask=',
    'mask=:',
    'mask=proc/acpi',
    'mask=/',
    'mask=/a:b',
    'mask=/a/..',
    'unmask=proc',
    'unmask=',
    'systempaths',
    'systempaths=confined',
    'proc-opts=hidepid=2',
    'constructor=x',
    'toString',
  ])('refused: %j', (option) => {
    expect(() => parse(option)).toThrow(MinirunError);
    expect(() => parse(option)).toThrow(`invalid --security-opt "${option}"`);
  });
});
