import { describe, expect, spyOn, test } from 'bun:test';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { MinirunError } from '../../../src/errors.ts';
import {
  checkHostIps,
  parseSctpEndpoints,
  parseSockets,
  type ReserveOptions,
  releasePorts,
  reservePorts,
  sweepPorts,
} from '../../../src/network/port-store.ts';
import { parsePublish } from '../../../src/network/ports.ts';
import { paths, stateRoot } from '../../../src/state/paths.ts';
import { useStateRoot } from '../../support/state-root.ts';

useStateRoot();

const all: ReserveOptions = { ipv4: true, ipv6: false, exists: () => true, nameOf: (id) => `name-of-${id}` };

/** Reserves what these -p ask for; the result in words. */
async function reserve(container: string, texts: string[], options: Partial<ReserveOptions> = {}): Promise<string[]> {
  const ports = await reservePorts(container, texts.flatMap(parsePublish), { ...all, ...options });
  return ports.map(
    ({ hostIp, hostPort, containerPort, protocol }) => `${hostIp} ${hostPort} ${containerPort} ${protocol}`,
  );
}

async function refusal(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: MinirunError) => `${error.code} ${error.message}`,
  );
}

/** Runs an action in a world of these sockets and of free ports 40000–40003. */
async function onHost<T>(files: Record<string, string>, action: () => Promise<T>): Promise<T> {
  const read = fs.readFileSync;
  const given: Record<string, string> = { '/proc/sys/net/ipv4/ip_local_port_range': '40000\t40003\n', ...files };
  for (const file of ['tcp', 'tcp6', 'udp', 'udp6', 'sctp/eps']) given[`/proc/self/net/${file}`] ??= '';
  const spy = spyOn(fs, 'readFileSync').mockImplementation(
    ((file: string, options: never) => given[file] ?? read(file, options)) as typeof fs.readFileSync,
  );
  try {
    return await action();
  } finally {
    spy.mockRestore();
  }
}

const head = '  sl  local_address rem_address   st tx_queue rx_queue\n';
const held = () => (JSON.parse(fs.readFileSync(paths.ports(), 'utf8')) as { held: Record<string, unknown[]> }).held;

describe('what is reserved', () => {
  test('an address that is not named is every one of the families that the container has', async () => {
    await onHost({}, async () => {
      expect(await reserve('a', ['8080:80'])).toEqual(['0.0.0.0 8080 80 tcp']);
      expect(await reserve('a', ['8080:80'], { ipv6: true })).toEqual(['0.0.0.0 8080 80 tcp', ':: 8080 80 tcp']);
      expect(await reserve('a', ['8080:80'], { ipv4: false, ipv6: true })).toEqual([':: 8080 80 tcp']);
      expect(await reserve('a', ['0.0.0.0:8080:80'], { ipv6: true })).toEqual(['0.0.0.0 8080 80 tcp']);
      expect(await refusal(reserve('b', ['[::]:8081:80']))).toMatch(/^125 .*gets no IPv6 address/);
      expect(await refusal(reserve('b', ['127.0.0.1:8081:80'], { ipv4: false, ipv6: true }))).toMatch(
        /no IPv4 address/,
      );
    });
  });

  test('in the order of the requests', async () => {
    await onHost({}, async () => {
      expect(await reserve('a', ['80', '40001:81', '40000-40002:82'])).toEqual([
        '0.0.0.0 40002 80 tcp',
        '0.0.0.0 40001 81 tcp',
        '0.0.0.0 40000 82 tcp',
      ]);
    });
  });

  test('is the same again for the container itself, and what it had before is given back', async () => {
    await onHost({}, async () => {
      await reserve('a', ['8080:80', '8081:81']);
      expect(await reserve('a', ['8080:80'])).toEqual(['0.0.0.0 8080 80 tcp']);
      expect(await reserve('b', ['8081:80'])).toEqual(['0.0.0.0 8081 80 tcp']);
    });
  });

  test('nothing for nothing', async () => {
    expect(await reserve('a', [])).toEqual([]);
    expect(held()).toEqual({});
  });

  test('the same words twice are one port, one port for two is an error', async () => {
    await onHost({}, async () => {
      expect(await reserve('a', ['8080:80', '8080:80'])).toEqual(['0.0.0.0 8080 80 tcp']);
      expect(await reserve('a', ['8080:80', '8081:80'])).toHaveLength(2);
      expect(await refusal(reserve('a', ['8080:80', '8080:81']))).toMatch(
        /^125 .*8080\/tcp.*another -p of this container/,
      );
      expect(await reserve('a', ['80', '80'])).toHaveLength(2);
    });
  });
});

describe('conflicts', () => {
  test.each([
    ['8080:80', '8080:80', true],
    ['8080:80', '127.0.0.1:8080:80', true],
    ['127.0.0.1:8080:80', '8080:80', true],
    ['127.0.0.1:8080:80', '127.0.0.1:8080:81', true],
    ['127.0.0.1:8080:80', '127.0.0.2:8080:80', false],
    ['8080:80', '8081:80', false],
    ['8080:80/udp', '8080:80/tcp', false],
    ['0.0.0.0:8080:80', '[::]:8080:80', false],
    ['[::]:8080:80', '[::1]:8080:80', true],
    ['8080-8082:80-82', '8082:80', true],
  ])('%s of one container, %s of another', async (first, second, conflict) => {
    await onHost({}, async () => {
      await reserve('a', [first], { ipv6: first.includes('[') });
      const before = held();
      const answer = await refusal(reserve('b', [second], { ipv6: second.includes('[') }));
      if (!conflict) expect(answer).toBe('no error');
      else expect(answer).toMatch(/^125 cannot publish port .*: container name-of-a has published it/);
      if (conflict) expect(held()).toEqual(before);
    });
  });

  test('all or none', async () => {
    await onHost({}, async () => {
      await reserve('a', ['8082:80']);
      expect(await refusal(reserve('b', ['8080:80', '8081:80', '8082:80', '80']))).toMatch(/8082/);
      expect(Object.keys(held())).toEqual(['a']);
      expect(await reserve('c', ['8080:80'])).toHaveLength(1);
    });
  });

  test('with listening processes of the host', async () => {
    const files = {
      // 127.0.0.1:8080 LISTEN; 0.0.0.0:8081 in TIME_WAIT; ::1 9090 and :: 9091 LISTEN; UDP 10.0.0.7:53.
      '/proc/self/net/tcp': `${head}   0: 0100007F:1F90 00000000:0000 0A\n   1: 00000000:1F91 0100007F:0050 06\n`,
      '/proc/self/net/tcp6': `${head}   0: 00000000000000000000000001000000:2382 0:0 0A\n   1: 00000000000000000000000000000000:2383 0:0 0A\n`,
      '/proc/self/net/udp': `${head}  1: 0700000A:0035 00000000:0000 07\n`,
    };
    await onHost(files, async () => {
      expect(await refusal(reserve('a', ['8080:80']))).toMatch(
        /^125 .*8080\/tcp.*a process of this host listens there/,
      );
      expect(await refusal(reserve('a', ['127.0.0.2:8080:80']))).toBe('no error');
      expect(await refusal(reserve('a', ['8080:80/udp']))).toBe('no error');
      expect(await refusal(reserve('a', ['8081:80']))).toBe('no error');
      expect(await refusal(reserve('a', ['9090:80']))).toBe('no error');
      expect(await refusal(reserve('a', ['9090:80'], { ipv6: true }))).toMatch(/listens/);
      // A socket on :: takes IPv4, too.
      expect(await refusal(reserve('a', ['9091:80']))).toMatch(/listens/);
      expect(await refusal(reserve('a', ['53:53/udp']))).toMatch(/listens/);
      expect(await refusal(reserve('a', ['53:53/tcp']))).toBe('no error');
    });
  });
});

describe('free ports', () => {
  test('go round: no immediate reuse; then an error', async () => {
    await onHost({}, async () => {
      expect(await reserve('a', ['80'])).toEqual(['0.0.0.0 40000 80 tcp']);
      await releasePorts('a');
      expect(await reserve('b', ['80'])).toEqual(['0.0.0.0 40001 80 tcp']);
      expect(await reserve('c', ['80', '81'])).toEqual(['0.0.0.0 40002 80 tcp', '0.0.0.0 40003 81 tcp']);
      expect(await reserve('d', ['80'])).toEqual(['0.0.0.0 40000 80 tcp']);
      expect(await refusal(reserve('e', ['80']))).toMatch(/^125 .*40000-40003\/tcp.*all of them are taken/);
      expect(await reserve('e', ['80/udp'])).toEqual(['0.0.0.0 40000 80 udp']);
    });
  });

  test('one number for both families', async () => {
    const tcp6 = `${head}   0: 00000000000000000000000001000000:9C40 0:0 0A\n`;
    await onHost({ '/proc/self/net/tcp6': tcp6 }, async () => {
      expect(await reserve('a', ['80'], { ipv6: true })).toEqual(['0.0.0.0 40001 80 tcp', ':: 40001 80 tcp']);
    });
  });

  test('the first free one of a range', async () => {
    await onHost({}, async () => {
      expect(await reserve('a', ['8000-8001:80'])).toEqual(['0.0.0.0 8000 80 tcp']);
      expect(await reserve('b', ['8000-8001:80'])).toEqual(['0.0.0.0 8001 80 tcp']);
      expect(await refusal(reserve('c', ['8000-8001:80']))).toMatch(/^125 .*8000-8001\/tcp.*all of them are taken/);
    });
  });

  test('four processes that ask at once get different ones', async () => {
    const store = path.resolve(import.meta.dir, '../../../src/network/port-store.ts');
    const code = (name: string) => `
      import { reservePorts } from ${JSON.stringify(store)};
      const options = { ipv4: true, ipv6: false, exists: () => true, nameOf: (id) => id };
      for (let i = 0; i < 10; i++) {
        const [port] = await reservePorts('${name}' + i, [{ containerPort: 80, protocol: 'tcp' }], options);
        console.log(port.hostPort);
      }`;
    const outputs = await Promise.all(
      ['a', 'b', 'c', 'd'].map(
        (name) =>
          new Promise<string>((resolve) => {
            const child = spawn(process.execPath, ['-e', code(name)], {
              env: { PATH: process.env.PATH, MINIRUN_ROOT: stateRoot() },
              stdio: ['ignore', 'pipe', 'inherit'],
            });
            let text = '';
            child.stdout.on('data', (chunk: Buffer) => {
              text += chunk.toString();
            });
            child.on('close', () => resolve(text));
          }),
      ),
    );
    const ports = outputs.join('').trim().split('\n');
    expect(ports).toHaveLength(40);
    expect(new Set(ports).size).toBe(40);
    expect(Object.keys(held())).toHaveLength(40);
  });
});

describe('reservations end', () => {
  test('with their container, with a sweep, with the boot', async () => {
    await onHost({}, async () => {
      await reserve('a', ['8080:80']);
      expect(await refusal(reserve('b', ['8080:80'], { exists: (id) => id !== 'a' }))).toBe('no error');
      await sweepPorts(() => false);
      expect(held()).toEqual({});
      await reserve('a', ['8080:80', '80']);
      const stored = JSON.parse(fs.readFileSync(paths.ports(), 'utf8')) as { boot: string };
      fs.writeFileSync(paths.ports(), JSON.stringify({ ...stored, boot: 'an earlier one' }));
      expect(await reserve('b', ['8080:80', '80'])).toEqual(['0.0.0.0 8080 80 tcp', '0.0.0.0 40001 80 tcp']);
    });
  });

  test('twice is no error, nor before there is a file', async () => {
    await releasePorts('a');
    await releasePorts('a');
    expect(fs.existsSync(paths.ports())).toBe(false);
  });
});

test('sockets as the kernel lists them', () => {
  const line = '   0: B80D01200000000067452301EFCDAB89:1F90 00000000000000000000000000000000:0000 0A 00000000';
  expect(parseSockets(`${head}${line}\n`, 'tcp')).toEqual([
    { protocol: 'tcp', address: '2001:db8::123:4567:89ab:cdef', port: 8080 },
  ]);
  const mapped = '   0: 0000000000000000FFFF00000100007F:0050 0:0 0A\n';
  expect(parseSockets(head + mapped, 'tcp')).toEqual([{ protocol: 'tcp', address: '127.0.0.1', port: 80 }]);
  expect(parseSockets('', 'udp')).toEqual([]);
  const sctp =
    ' ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\nffff88 ffff89 2   10  29   11111     0 15128 127.0.0.1 ::\n';
  expect(parseSctpEndpoints(sctp)).toEqual([
    { protocol: 'sctp', address: '127.0.0.1', port: 11111 },
    { protocol: 'sctp', address: '::', port: 11111 },
    { protocol: 'sctp', address: '0.0.0.0', port: 11111 },
  ]);
});

test('addresses of the host', () => {
  const check = (text: string) => () => checkHostIps(parsePublish(text), ['127.0.0.1', '192.0.2.7', '::1']);
  for (const text of ['80', '0.0.0.0::80', '127.0.0.9::80', '192.0.2.7::80', '[::]::80', '[::1]::80'])
    expect(check(text)).not.toThrow();
  expect(check('192.0.2.8::80')).toThrow(/192\.0\.2\.8.*it has 127\.0\.0\.1, 192\.0\.2\.7, ::1/);
  expect(check('[2001:db8::1]::80')).toThrow(/or :: for all/);
  expect(() => checkHostIps(parsePublish('127.0.0.1::80'))).not.toThrow();
});
