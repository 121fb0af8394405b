import { describe, expect, test } from 'bun:test';
import { splitWords } from '../../../src/container/capture.ts';

const isContainer = (name: string) => ['web', 'db', 'tcp', 'host'].includes(name);

describe('what is a container and what the filter', () => {
  const cases: [string, string[], string[]][] = [
    ['web', ['web'], []],
    ['web icmp', ['web'], ['icmp']],
    ['web db', ['web', 'db'], []],
    ['web db:eth1 port 80', ['web', 'db:eth1'], ['port', '80']],
    ['web host 10.0.0.1', ['web'], ['host', '10.0.0.1']],
    ['web host:eth0 arp', ['web', 'host:eth0'], ['arp']],
    ['host db', ['host', 'db'], []],
    // A container may have the name of a protocol.
    ['web tcp', ['web'], ['tcp']],
    ['web tcp:eth0', ['web', 'tcp:eth0'], []],
    ['tcp tcp', ['tcp'], ['tcp']],
    ['web src web', ['web'], ['src', 'web']],
    ['web dbb', ['web'], ['dbb']],
    ['web -- db', ['web'], ['db']],
    ['web tcp -- tcp', ['web', 'tcp'], ['tcp']],
    ['web db host --', ['web', 'db', 'host'], []],
  ];
  test.each(cases)('%s', (line, sources, filter) => {
    const words = line.split(' ');
    const border = words.indexOf('--');
    const length = border < 0 ? undefined : words.length - border - 1;
    const given = words.filter((word) => word !== '--');
    expect(splitWords(given, length, isContainer)).toEqual({ sources, filter });
  });
});
