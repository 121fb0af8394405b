import { expect, test } from 'bun:test';
import { namespaceObstacle } from '../../../src/host/userns.ts';

const obstacle = (sysctls: Record<string, string>) => namespaceObstacle((key) => sysctls[key]);

test('no obstacle where a kernel has none of the settings, or has them set to allow', () => {
  expect(obstacle({})).toBeUndefined();
  expect(
    obstacle({
      'user/max_user_namespaces': '15000',
      'kernel/unprivileged_userns_clone': '1',
      'kernel/apparmor_restrict_unprivileged_userns': '0',
    }),
  ).toBeUndefined();
});

test.each([
  ['user/max_user_namespaces', '0', 'sudo sysctl -w user.max_user_namespaces=15000'],
  ['kernel/unprivileged_userns_clone', '0', 'sudo sysctl -w kernel.unprivileged_userns_clone=1'],
  [
    'kernel/apparmor_restrict_unprivileged_userns',
    '1',
    'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
  ],
])('%s=%s is named with its remedy', (key, value, remedy) => {
  const found = obstacle({ 'user/max_user_namespaces': '15000', [key]: value });
  expect(found?.why).toContain(`${key.replace('/', '.')} is ${value}`);
  expect(found?.remedy).toEndWith(remedy);
});
