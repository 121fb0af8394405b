import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import {
  canonicalName,
  familiarName,
  familiarRepository,
  isDigest,
  parseReference,
  shortName,
} from '../../../src/image/reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;

describe('names', () => {
  test.each([
    ['alpine', 'docker.io/library/alpine:latest', 'alpine:latest'],
    ['alpine:3.20', 'docker.io/library/alpine:3.20', 'alpine:3.20'],
    ['docker.io/alpine', 'docker.io/library/alpine:latest', 'alpine:latest'],
    ['index.docker.io/library/alpine', 'docker.io/library/alpine:latest', 'alpine:latest'],
    ['library/alpine', 'docker.io/library/alpine:latest', 'alpine:latest'],
    ['user/tool', 'docker.io/user/tool:latest', 'user/tool:latest'],
    ['library/user/tool', 'docker.io/library/user/tool:latest', 'library/user/tool:latest'],
    ['localhost/tool', 'localhost/tool:latest', 'localhost/tool:latest'],
    ['localhost:5000/tool', 'localhost:5000/tool:latest', 'localhost:5000/tool:latest'],
    ['ghcr.io/a/b/c:v1', 'ghcr.io/a/b/c:v1', 'ghcr.io/a/b/c:v1'],
    ['UPPER/tool', 'UPPER/tool:latest', 'UPPER/tool:latest'],
    ['[::1]:5000/tool', '[::1]:5000/tool:latest', '[::1]:5000/tool:latest'],
    ['a__b/c-d.e--f', 'docker.io/a__b/c-d.e--f:latest', 'a__b/c-d.e--f:latest'],
    [`alpine@${digest}`, `docker.io/library/alpine@${digest}`, `alpine@${digest}`],
    [`host:5000/x:1@${digest}`, `host:5000/x@${digest}`, `host:5000/x@${digest}`],
  ])('%s', (text, canonical, familiar) => {
    const reference = parseReference(text);
    expect(canonicalName(reference)).toBe(canonical);
    expect(familiarName(reference)).toBe(familiar);
    expect(parseReference(canonical)).toEqual(reference);
    expect(parseReference(familiar)).toEqual(reference);
  });

  test('short forms', () => {
    expect(shortName(parseReference('docker.io/library/alpine:latest'))).toBe('alpine');
    expect(shortName(parseReference('alpine:3'))).toBe('alpine:3');
    expect(familiarRepository(parseReference('localhost:5000/a:1'))).toBe('localhost:5000/a');
  });
});

describe('refused', () => {
  test.each([
    '',
    'Alpine',
    'user/Tool',
    '-alpine',
    'alpine-',
    'a..b',
    'a___b',
    'a//b',
    '/alpine',
    'alpine/',
    '../etc',
    'a/../b',
    'alpine:',
    'alpine:-x',
    `alpine:${'x'.repeat(129)}`,
    'alpine@',
    'alpine@sha256:abc',
    `alpine@sha256:${'A'.repeat(64)}`,
    `alpine@md5:${'a'.repeat(32)}`,
    'a'.repeat(64),
    'a/'.repeat(130),
    `${'a'.repeat(260)}`,
    'host_name.x:5000/a',
    'alpine\n',
    'al pine',
    'http://host/x',
  ])('%j', (text) => {
    expect(() => parseReference(text)).toThrow(MinirunError);
  });

  test('upper case names the lower-case form', () => {
    expect(() => parseReference('Alpine:3')).toThrow('Write alpine:3.');
  });
});

test('digests', () => {
  expect(isDigest(digest)).toBe(true);
  expect(isDigest(`sha512:${'0'.repeat(128)}`)).toBe(true);
  for (const text of ['sha256:', `sha256:${'g'.repeat(64)}`, `sha256:../${'a'.repeat(61)}`, `sha1:${'a'.repeat(40)}`]) {
    expect(isDigest(text)).toBe(false);
  }
});
