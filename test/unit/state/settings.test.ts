import { describe, expect, test } from 'bun:test';
import { isLoopback, parseSettings } from '../../../src/state/settings.ts';

const parse = (text: string) => parseSettings(text, '/etc/minirun/config.yaml');

describe('the config file', () => {
  test('may be empty', async () => {
    expect(await parse('')).toEqual({ registries: {}, limits: {} });
    expect(await parse('sync-layers: true')).toEqual({ registries: {}, limits: {}, syncLayers: true });
    expect(await parse('sync-layers: false')).toEqual({ registries: {}, limits: {} });
    expect(await parse('registries:\nlimits: {}\n')).toEqual({ registries: {}, limits: {} });
  });

  test('with everything', async () => {
    const text = `
registries:
  docker.io:
    mirrors: ["http://127.0.0.1:5001/", "https://mirror.example/prefix", "http://plain.example:5000"]
  localhost:5000: { ca: /etc/ca.crt }
  plain.example:5000: { insecure: true }
limits:
  layer-size: 20g
  layer-entries: 1000000
`;
    expect(await parse(text)).toEqual({
      registries: {
        'docker.io': {
          mirrors: ['http://127.0.0.1:5001', 'https://mirror.example/prefix', 'http://plain.example:5000'],
          insecure: false,
        },
        'localhost:5000': { mirrors: [], insecure: false, ca: '/etc/ca.crt' },
        'plain.example:5000': { mirrors: [], insecure: true },
      },
      limits: { layerSize: 20 * 2 ** 30, layerEntries: 1_000_000 },
    });
  });

  test.each([
    ['a: [', /not YAML/],
    ['- x', /has no keys/],
    ['registry: {}', /"registry" in \/etc\/minirun\/config\.yaml: there is no such key\. Use registries, limits/],
    ['registries: { "a b": {} }', /it is no host/],
    ['registries: { "https://x": {} }', /it is no host/],
    ['registries: { x.example: { mirror: [] } }', /"mirror" in \/etc\/minirun\/config\.yaml: there is no such key/],
    ['registries: { x.example: { mirrors: "https://y" } }', /it is no list/],
    ['registries: { x.example: { mirrors: ["y.example"] } }', /no http or https URL/],
    ['registries: { x.example: { mirrors: ["ftp://y.example"] } }', /no http or https URL/],
    ['registries: { x.example: { mirrors: ["https://u:p@y.example"] } }', /password/],
    ['registries: { x.example: { mirrors: ["http://y.example"] } }', /plain HTTP/],
    ['registries: { x.example: { insecure: yes please } }', /neither true nor false/],
    ['registries: { x.example: { ca: ca.crt } }', /absolute path/],
    ['limits: { layer-size: many }', /layer-size/],
    ['sync-layers: perhaps', /neither true nor false/],
    ['limits: { layer-size: 0 }', /layer-size/],
    ['limits: { layer-entries: 1.5 }', /layer-entries/],
  ])('refuses %s', async (text, message) => {
    const said = await parse(text).then(
      () => 'nothing',
      (error: Error) => error.message,
    );
    expect(said).toMatch(message);
  });

  test('sizes', async () => {
    const sizes = await Promise.all(
      ['4096', '1.5k', '10M', '2GB', '1 tib'].map((size) => parse(`limits: { layer-size: ${size} }`)),
    );
    expect(sizes.map(({ limits }) => limits.layerSize)).toEqual([4096, 1536, 10 * 2 ** 20, 2 * 2 ** 30, 2 ** 40]);
  });
});

test('what is this very machine', () => {
  const names = ['localhost', '127.0.0.1', '127.9.9.9', '[::1]', '128.0.0.1', '127.0.0.1.example', 'localhost.example'];
  expect(names.map(isLoopback)).toEqual([true, true, true, true, false, false, false]);
});
