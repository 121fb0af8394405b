import { describe, expect, test } from 'bun:test';
import { capabilityNames } from '../../../src/container/capabilities.ts';
import { type ExecRequest, planExec } from '../../../src/container/exec.ts';
import type { OciProcess } from '../../../src/container/oci.ts';
import { MinirunError } from '../../../src/errors.ts';

const own: OciProcess = {
  terminal: false,
  user: { username: 'web:staff', additionalGroups: ['7'] },
  args: ['httpd', '-f'],
  env: ['PATH=/bin', 'A=own'],
  cwd: '/srv',
  capabilities: {
    bounding: ['CAP_CHOWN'],
    effective: ['CAP_CHOWN'],
    permitted: ['CAP_CHOWN'],
    inheritable: [],
    ambient: [],
  },
  rlimits: [{ type: 'RLIMIT_NOFILE', soft: 5, hard: 6 }],
  noNewPrivileges: true,
};
const plain: ExecRequest = {
  command: ['id'],
  env: [],
  envFiles: [],
  tty: false,
  interactive: false,
  privileged: false,
  detach: false,
};
const plan = (change: Partial<ExecRequest> = {}) => planExec(own, { ...plain, ...change });

test("another command, and else everything as the container's own process has it", () => {
  expect(plan()).toEqual({ ...own, args: ['id'], consoleSize: undefined });
});

test('what was asked for', () => {
  const target = plan({ workdir: '/tmp', user: '1000', tty: true });
  expect(target).toMatchObject({ cwd: '/tmp', user: { username: '1000' }, terminal: true });
  expect(target.user.additionalGroups).toEqual(['7']);
});

describe('environment', () => {
  test('-e over --env-file over a terminal over the container', () => {
    const env = (change: Partial<ExecRequest>) => plan(change).env;
    expect(env({ envFiles: ['A=file\nB=file\n'], env: ['B=option'] })).toEqual(['PATH=/bin', 'A=file', 'B=option']);
    expect(env({ tty: true })).toContain('TERM=xterm');
    expect(env({ tty: true, env: ['TERM=vt100'] })).toEqual(['PATH=/bin', 'A=own', 'TERM=vt100']);
    expect(env({})).not.toContain('TERM=xterm');
  });
});

describe('privileges', () => {
  test('--privileged: all capabilities, none of them inheritable (CVE-2022-29162)', () => {
    const { capabilities } = plan({ privileged: true });
    expect(capabilities.effective).toEqual([...capabilityNames]);
    expect(capabilities.bounding).toEqual([...capabilityNames]);
    expect([...capabilities.inheritable, ...capabilities.ambient]).toEqual([]);
  });

  test('a uid that does not fit is refused', () => {
    expect(() => plan({ user: '2147483648' })).toThrow(MinirunError);
  });
});
