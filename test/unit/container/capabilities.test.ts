import { describe, expect, test } from 'bun:test';
import { adjustCapabilities, capabilityNames, defaultCapabilities } from '../../../src/container/capabilities.ts';
import { MinirunError } from '../../../src/errors.ts';

/** A capability set as /proc/PID/status shows it. */
const mask = (names: readonly string[]) =>
  names
    .reduce((bits, name) => bits | (1n << BigInt(capabilityNames.indexOf(name))), 0n)
    .toString(16)
    .padStart(16, '0');

test('numbers are those of linux/capability.h', () => {
  expect(capabilityNames.indexOf('CAP_CHOWN')).toBe(0);
  expect(capabilityNames.indexOf('CAP_NET_ADMIN')).toBe(12);
  expect(capabilityNames.indexOf('CAP_SYS_ADMIN')).toBe(21);
  expect(capabilityNames.indexOf('CAP_MKNOD')).toBe(27);
  expect(capabilityNames.indexOf('CAP_CHECKPOINT_RESTORE')).toBe(40);
  expect(capabilityNames).toHaveLength(41);
});

test("the default is docker's a80425fb without MKNOD", () => {
  expect(mask(adjustCapabilities([], []))).toBe('00000000a00425fb');
  expect(defaultCapabilities).not.toContain('CAP_MKNOD');
});

describe('--cap-add and --cap-drop', () => {
  test.each(['NET_ADMIN', 'net_admin', 'CAP_NET_ADMIN', 'cap_net_admin'])('%s is added once', (name) => {
    const names = adjustCapabilities([name, 'CHOWN'], []);
    expect(names.filter((each) => each === 'CAP_NET_ADMIN')).toHaveLength(1);
    expect(names).toHaveLength(defaultCapabilities.length + 1);
  });

  test('dropping wins over the default and over adding', () => {
    expect(adjustCapabilities([], ['chown'])).not.toContain('CAP_CHOWN');
    expect(adjustCapabilities(['SYS_TIME'], ['SYS_TIME'])).not.toContain('CAP_SYS_TIME');
  });

  test('ALL', () => {
    expect(adjustCapabilities(['ALL'], [])).toEqual([...capabilityNames]);
    expect(adjustCapabilities(['all'], ['SYS_ADMIN'])).toEqual(
      capabilityNames.filter((name) => name !== 'CAP_SYS_ADMIN'),
    );
    expect(adjustCapabilities([], ['ALL'])).toEqual([]);
    expect(adjustCapabilities(['NET_RAW', 'CHOWN'], ['ALL'])).toEqual(['CAP_CHOWN', 'CAP_NET_RAW']);
  });

  test.each(['', 'CAP_', 'NET', 'CAP_CAP_CHOWN', 'ALL '])('unknown: %j', (name) => {
    expect(() => adjustCapabilities([name], [])).toThrow(MinirunError);
    expect(() => adjustCapabilities([], [name])).toThrow(MinirunError);
  });
});
