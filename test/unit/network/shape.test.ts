import { describe, expect, test } from 'bun:test';
import { needsNetem, parseDelay, parseLoss, parseRate, shapeCommand, shapeText } from '../../../src/network/shape.ts';

const argv = (...args: Parameters<typeof shapeCommand>) => {
  const command = shapeCommand(...args);
  return command.tool === 'run' ? command.argv.join(' ') : command.tool;
};

describe('settings as tc writes them', () => {
  test.each([
    ['10mbit', 10_000_000],
    ['1.5Mbit', 1_500_000],
    ['512kbit', 512_000],
    ['9600', 9600],
    ['1gbit', 1e9],
    ['1mbps', 8e6],
    ['none', undefined],
    ['0', undefined],
  ])('--rate %s', (text, rate) => expect(parseRate(text)).toBe(rate as number));

  test.each([
    ['20ms', 20_000],
    ['1s', 1e6],
    ['500us', 500],
    ['0.5ms', 500],
    ['none', undefined],
  ])('--delay %s', (text, delay) => expect(parseDelay(text)).toBe(delay as number));

  test.each([
    ['1%', 1],
    ['0.5', 0.5],
    ['100%', 100],
    ['none', undefined],
    ['0%', undefined],
  ])('--loss %s', (text, loss) => expect(parseLoss(text)).toBe(loss as number));

  test('what is none of them is refused with an example', () => {
    for (const text of ['', 'fast', '-1mbit', '10 mbit', '10mbits', '3bit', '9999tbit'])
      expect(() => parseRate(text)).toThrow('Give one such as 10mbit');
    for (const text of ['20', 'ms', '20m', '-1ms', '61s']) expect(() => parseDelay(text)).toThrow('such as 20ms');
    for (const text of ['a', '101%', '-1%', '1%%']) expect(() => parseLoss(text)).toThrow('such as 1%');
  });

  test('are shown as they are typed', () => {
    expect(shapeText({ rate: 10_000_000, delay: 20_000, loss: 0.5 })).toBe('rate 10mbit delay 20ms loss 0.5%');
    expect(shapeText({ rate: 9600, delay: 1_500 })).toBe('rate 9600bit delay 1500us');
    expect(shapeText({})).toBe('');
  });
});

describe('the command', () => {
  test('a rate alone is done by tbf, with 10 ms of it at once and at least four packets', () => {
    expect(argv('eth1', 'web', { rate: 100_000_000 })).toBe(
      'tc -n web qdisc replace dev eth1 root tbf rate 100mbit burst 125000 latency 50ms',
    );
    expect(argv('veth0', undefined, { rate: 64_000 }, 1400)).toBe(
      'tc qdisc replace dev veth0 root tbf rate 64kbit burst 5656 latency 50ms',
    );
    expect(needsNetem({ rate: 1 })).toBe(false);
  });

  test('delay and loss take netem, which then does the rate, too, and has room for what is on its way', () => {
    expect(argv('eth1', 'web', { rate: 10_000_000, delay: 20_000, loss: 1 })).toBe(
      'tc -n web qdisc replace dev eth1 root netem delay 20ms loss 1% rate 10mbit limit 1000',
    );
    expect(argv('eth1', 'web', { delay: 1_000_000 })).toEndWith(' limit 100000');
    expect(needsNetem({ loss: 1 })).toBe(true);
  });

  test('nothing takes it away', () => {
    expect(argv('eth1', 'web', {})).toBe('tc -n web qdisc del dev eth1 root');
  });
});
