import { describe, expect, test } from 'bun:test';
import { type Challenge, mergeScopes, parseChallenges } from '../../../../src/image/registry/authorization.ts';
import { retryAfter } from '../../../../src/image/registry/backoff.ts';
import { messageIn } from '../../../../src/image/registry/failure.ts';
import { parseRegistry } from '../../../../src/image/registry/login.ts';

describe('WWW-Authenticate', () => {
  test.each<[string, Challenge[]]>([
    [
      'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"',
      [
        {
          scheme: 'bearer',
          parameters: { realm: 'https://auth.example/token', service: 'registry', scope: 'repository:a/b:pull,push' },
        },
      ],
    ],
    [
      'BASIC Realm="a \\"quoted\\", with comma", charset=UTF-8 , bearer realm=x',
      [
        { scheme: 'basic', parameters: { realm: 'a "quoted", with comma', charset: 'UTF-8' } },
        { scheme: 'bearer', parameters: { realm: 'x' } },
      ],
    ],
    [
      'Negotiate abc+/==, Basic realm="x"',
      [
        { scheme: 'negotiate', parameters: {} },
        { scheme: 'basic', parameters: { realm: 'x' } },
      ],
    ],
    [
      'Negotiate, Bearer realm = "x" , service="y"',
      [
        { scheme: 'negotiate', parameters: {} },
        { scheme: 'bearer', parameters: { realm: 'x', service: 'y' } },
      ],
    ],
    ['Basic', [{ scheme: 'basic', parameters: {} }]],
    ['', []],
    ['"', []],
    ['Bearer realm="never ends', [{ scheme: 'bearer', parameters: {} }]],
  ])('%s', (header, challenges) => {
    expect(parseChallenges(header)).toEqual(challenges);
  });

  test('a long hostile one takes no time', () => {
    const started = performance.now();
    parseChallenges(`Bearer ${'a="'.repeat(20_000)}`);
    parseChallenges(`${'a '.repeat(20_000)}`);
    expect(performance.now() - started).toBeLessThan(1000);
  });
});

test('scopes of one resource become one', () => {
  expect(mergeScopes(['repository:a:pull', 'repository:b:pull', 'repository:a:push,pull'])).toEqual([
    'repository:a:pull,push',
    'repository:b:pull',
  ]);
});

test('Retry-After as seconds and as date', () => {
  const now = Date.UTC(2026, 0, 1, 12, 0, 0);
  expect(retryAfter('7')).toBe(7);
  expect(retryAfter('Thu, 01 Jan 2026 12:00:30 GMT', now)).toBe(30);
  expect(retryAfter('Thu, 01 Jan 2026 11:00:00 GMT', now)).toBe(0);
  expect(retryAfter('soon')).toBeUndefined();
  expect(retryAfter(null)).toBeUndefined();
});

test('what a registry says becomes one harmless line', () => {
  const message = (document: unknown) => messageIn(Buffer.from(JSON.stringify(document)));
  expect(message({ errors: [{ code: 'DENIED', message: 'no\n\u001b[31mway\u202e.' }] })).toBe('no [31mway');
  expect(message({ errors: [{ code: 'DENIED' }] })).toBe('DENIED');
  expect(message({ details: 'incorrect password' })).toBe('incorrect password');
  expect(message({ errors: [{ message: 'x'.repeat(5000) }] })?.length).toBe(301);
  expect(message({ errors: [null, 5] })).toBeUndefined();
  expect(messageIn(Buffer.from('<html>'))).toBeUndefined();
  expect(messageIn(Buffer.from('null'))).toBeUndefined();
});

describe('the registry to log in to', () => {
  test.each([
    ['docker.io', 'docker.io'],
    ['https://index.docker.io/v1/', 'docker.io'],
    ['registry.example', 'registry.example'],
    ['https://registry.example:5000/v2/', 'registry.example:5000'],
    ['localhost', 'localhost'],
  ])('%s', (text, host) => {
    expect(parseRegistry(text)).toBe(host);
  });

  test.each(['', 'registry', 'a b.example', 'user@host.example', '../x.y'])('refuses "%s"', (text) => {
    expect(() => parseRegistry(text)).toThrow(/invalid registry/);
  });
});
