import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { humanDuration, humanSize } from '../../src/cli/output/units.ts';
import { parseFilters } from '../../src/cli/output/filters.ts';
import { printable } from '../../src/cli/output/printable.ts';
import { renderTemplate } from '../../src/cli/output/template.ts';
import { adjustCapabilities } from '../../src/container/capabilities.ts';
import { usableNameservers } from '../../src/container/etc.ts';
import { parseMoment } from '../../src/container/log-stamp.ts';
import * as mountOptions from '../../src/container/mount-options.ts';
import * as options from '../../src/container/options.ts';
import { parseSecurityOptions } from '../../src/container/security-options.ts';
import { namePattern } from '../../src/container/files.ts';
import { MinirunError } from '../../src/errors.ts';
import { parseManifestDocument, parseImageConfig } from '../../src/image/manifest-document.ts';
import { parsePlatform, platformName } from '../../src/image/platform.ts';
import { portsOf } from '../../src/image/ports.ts';
import { canonicalName, familiarName, isDigest, parseReference } from '../../src/image/reference.ts';
import { parseChallenges } from '../../src/image/registry/authorization.ts';
import * as address from '../../src/network/address.ts';
import { checkIfname, checkMac, checkMtu } from '../../src/network/link.ts';
import { macAddress, networkOptions, parseAttachments } from '../../src/network/options.ts';
import { parsePublish } from '../../src/network/ports.ts';
import { parseRoute, routeText } from '../../src/network/route.ts';
import { parseDelay, parseLoss, parseRate } from '../../src/network/shape.ts';
import { type Circumstances, readDockerProfile } from '../../src/seccomp/docker.ts';
import { seccompFilter } from '../../src/seccomp/index.ts';
import { parseSettings } from '../../src/state/settings.ts';
import { fuzzing } from '../support/fuzz.ts';

/** Words that look like what parsers look for, and names of what every object in JavaScript has. */
const pieces = fc.constantFrom(
  ...[
    [
      '',
      ' ',
      ':',
      '::',
      '/',
      '=',
      ',',
      '-',
      '.',
      '..',
      '@',
      '%',
      '[',
      ']',
      '\0',
      '\n',
      '\t',
      '\u202e',
      '"',
      '{{',
      '}}',
    ],
    [
      '0',
      '1',
      '80',
      '65536',
      '-1',
      '1e9',
      '4294967296',
      '99999999999999999999',
      '10.0.0.1',
      '1.2.3.4/33',
      'fd00::1',
      '::/0',
    ],
    [
      '__proto__',
      'constructor',
      'toString',
      'hasOwnProperty',
      'valueOf',
      'default',
      'host',
      'none',
      'all',
      'tcp',
      'udp',
    ],
    [
      'sha256:',
      'a'.repeat(64),
      'latest',
      'nofile',
      'bind',
      'type',
      'src',
      'dst',
      'ro',
      'rw',
      'size',
      'mode',
      'ms',
      'kbit',
      'M',
    ],
    [
      'via',
      'dev',
      'metric',
      'label',
      'CAP_',
      'SYS_ADMIN',
      'always',
      'on-failure',
      'linux',
      'arm64',
      'v8',
      'İ',
      'ﬀ',
      '😀',
    ],
  ].flat(),
);
const hostile = fc.oneof(
  fc.array(pieces, { maxLength: 7 }).map((list) => list.join('')),
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.string({ maxLength: 60 }),
);
const list = fc.array(hostile, { maxLength: 5 });

/** What takes a text that a user, an image or a registry may have given. */
const parsers: Record<string, (text: string, more: string[]) => unknown> = {
  parseSignal: options.parseSignal,
  parseRestart: options.parseRestart,
  parseUlimit: options.parseUlimit,
  parseSysctl: (text, more) => options.parseSysctl(text, more.length > 1),
  parseEnv: (text) => options.parseEnv(text, {}),
  parseEnvFile: (text) => options.parseEnvFile(text, {}),
  mergeEnv: (_, more) => options.mergeEnv(more, more),
  parseLabel: options.parseLabel,
  parseAddHost: options.parseAddHost,
  parseVolume: (text) => mountOptions.parseVolume(text, '/here'),
  parseMount: (text) => mountOptions.parseMount(text, '/here'),
  parseTmpfs: mountOptions.parseTmpfs,
  parseShmSize: mountOptions.parseShmSize,
  parseDevice: mountOptions.parseDevice,
  checkVolumeName: (text) => mountOptions.checkVolumeName(text),
  checkName: (text) => options.checkName(text, namePattern),
  checkHostname: options.checkHostname,
  checkUser: options.checkUser,
  checkGroup: options.checkGroup,
  parseSecurityOptions: (_, more) => parseSecurityOptions(more),
  readDockerProfile: (text) => readDockerProfile('p.json', text, machine),
  adjustCapabilities: (text, more) => adjustCapabilities(more, [text]),
  parseAddress: (text) => address.parseAddress(text),
  parseSubnet: address.parseSubnet,
  parseDestination: address.parseDestination,
  readCidr: address.readCidr,
  parsePublish,
  portsOf,
  parseRoute: (text, more) => parseRoute([text, ...more]),
  parseRate,
  parseDelay,
  parseLoss,
  checkIfname,
  checkMac: (text) => checkMac(text, '--mac'),
  checkMtu: (text, more) => checkMtu(text.length * 100, more),
  macAddress,
  networkOptions: (text, more) =>
    networkOptions({
      name: text,
      driver: more[0] ?? 'bridge',
      internal: false,
      isolate: true,
      routes: [],
      options: more,
    }),
  parseAttachments: (text, more) =>
    parseAttachments(
      { network: [text, ...more], networkAlias: more, ip: text, ip6: text, macAddress: text },
      (name) => name,
    ),
  parseReference,
  parsePlatform,
  parseChallenges,
  usableNameservers,
  parseManifest: (text) =>
    parseManifestDocument({ digest: `sha256:${'a'.repeat(64)}`, mediaType: 'x', body: Buffer.from(text) }),
  parseImageConfig: (text) => parseImageConfig(Buffer.from(text)),
  parseMoment: (text) => parseMoment('--since', text, Date.now()),
  parseFilters: (_, more) =>
    parseFilters(more, { label: { matches: () => true }, name: { values: ['a'], matches: () => true } }),
  renderTemplate: (text) => renderTemplate(text, { Name: 'x', List: [1], Map: { a: 1 } }),
};

const machine: Circumstances = { capabilities: [], machine: 'x64', kernel: '6.12' };

describe('whatever a parser is given, it gives a value or a MinirunError', () => {
  test.each(Object.keys(parsers))('%s', (name) => {
    fc.assert(
      fc.property(hostile, list, (text, more) => {
        try {
          (parsers[name] as (text: string, more: string[]) => unknown)(text, more);
        } catch (error) {
          if (!(error instanceof MinirunError)) throw error;
          // Nothing of JavaScript's in what the user reads, unless it was given.
          if (!`${text}${more.join()}`.includes('undefined'))
            expect(error.message).not.toMatch(/undefined|\[object|NaN/);
        }
      }),
      fuzzing(3),
    );
  });

  test('a seccomp profile, which then can be compiled', () => {
    const word = fc.constantFrom(
      'SCMP_ACT_ALLOW',
      'SCMP_ACT_ERRNO',
      'SCMP_CMP_EQ',
      'SCMP_CMP_MASKED_EQ',
      'mkdir',
      'X',
      '',
    );
    const value = fc.oneof(fc.jsonValue(), fc.nat(70), word, fc.maxSafeNat());
    const argument = fc.record({ index: fc.nat(6), value, valueTwo: value, op: word }, { requiredKeys: [] });
    const rule = fc.record(
      {
        names: fc.array(word, { maxLength: 3 }),
        action: word,
        errnoRet: fc.nat(5000),
        args: fc.array(argument, { maxLength: 3 }),
      },
      { requiredKeys: ['names', 'action'] },
    );
    const profile = fc.record({
      defaultAction: word,
      syscalls: fc.oneof(fc.array(rule, { maxLength: 4 }), fc.jsonValue()),
    });
    fc.assert(
      fc.property(fc.oneof(profile, fc.jsonValue()), (content) => {
        try {
          const { profile: read } = readDockerProfile('p.json', JSON.stringify(content), machine);
          expect(seccompFilter(read, []).program.byteLength).toBeGreaterThan(0);
        } catch (error) {
          if (!(error instanceof MinirunError)) throw error;
        }
      }),
      fuzzing(3),
    );
  });

  test('the settings', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          hostile,
          fc.jsonValue().map((value) => JSON.stringify({ registries: value, limits: value })),
        ),
        async (text) => {
          await parseSettings(text, 'config.yaml').catch((error: unknown) => {
            if (!(error instanceof MinirunError)) throw error;
          });
        },
      ),
      fuzzing(3),
    );
  });
});

describe('there and back', () => {
  const byte = fc.nat(255);
  const ipv4 = fc.tuple(byte, byte, byte, byte).map((parts) => parts.join('.'));
  const ipv6 = fc.ipV6();

  test('addresses', () => {
    fc.assert(
      fc.property(fc.oneof(ipv4, ipv6), (text) => {
        const parsed = address.parseAddress(text);
        expect(address.parseAddress(address.formatAddress(parsed))).toEqual(parsed);
        expect(address.canonicalAddress(address.canonicalAddress(text))).toBe(address.canonicalAddress(text));
      }),
      fuzzing(),
    );
  });

  test('ranges', () => {
    fc.assert(
      fc.property(ipv4, fc.integer({ min: 8, max: 30 }), (text, length) => {
        const range = address.blockOf(address.parseAddress(text), length);
        expect(address.parseSubnet(address.formatRange(range))).toEqual(range);
        expect(address.contains(range, address.parseAddress(text))).toBe(true);
        expect(address.overlaps(range, range) && address.encloses(range, range)).toBe(true);
      }),
      fuzzing(),
    );
  });

  test('names of images', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,8}$/);
    const tag = fc.stringMatching(/^[\w][\w.-]{0,10}$/);
    const reference = fc.tuple(
      fc.constantFrom('', 'localhost:5000/', 'quay.io/', 'docker.io/library/'),
      part,
      part,
      tag,
    );
    fc.assert(
      fc.property(reference, ([host, one, two, label]) => {
        const parsed = parseReference(`${host}${one}/${two}:${label}`);
        expect(parseReference(canonicalName(parsed))).toEqual(parsed);
        expect(parseReference(familiarName(parsed))).toEqual(parsed);
      }),
      fuzzing(),
    );
  });

  test('platforms, routes', () => {
    for (const text of ['linux/amd64', 'linux/arm/v7', 'linux/arm64'])
      expect(parsePlatform(platformName(parsePlatform(text)))).toEqual(parsePlatform(text));
    fc.assert(
      fc.property(ipv4, fc.integer({ min: 1, max: 32 }), ipv4, fc.nat(1000), (text, length, via, metric) => {
        const range = address.blockOf(address.parseAddress(text), length);
        const words = [address.formatRange(range), 'via', via, 'metric', String(metric)];
        const route = parseRoute(words);
        expect(parseRoute(routeText(route).split(' '))).toEqual(route);
      }),
      fuzzing(),
    );
  });

  test('what is printed of somebody else’s text never moves a cursor, and is printed once', () => {
    fc.assert(
      fc.property(hostile, (text) => {
        const shown = printable(text);
        expect(shown).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}]/u);
        expect(printable(shown)).toBe(shown);
      }),
      fuzzing(3),
    );
  });

  test('sizes and durations are words for every number', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }), (number) => {
        for (const text of [humanSize(number), humanDuration(number)]) expect(text).not.toMatch(/undefined|NaN/);
      }),
      fuzzing(),
    );
    expect(isDigest('constructor:aa')).toBe(false);
  });
});
