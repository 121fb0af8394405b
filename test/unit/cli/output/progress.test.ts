import { describe, expect, test } from 'bun:test';
import { EventEmitter } from 'node:events';
import xterm from '@xterm/headless';
import { linesThatFit, type ProgressStream, reportTo } from '../../../../src/cli/output/progress.ts';
import type { LayerEvent } from '../../../../src/image/progress.ts';

/** A stream that keeps what is written; a terminal when it has a size. */
function fakeStream(size?: { columns: number; rows: number }): ProgressStream & { text: string } {
  const stream = Object.assign(new EventEmitter(), {
    text: '',
    isTTY: size !== undefined,
    ...size,
    write(chunk: string) {
      stream.text += chunk;
      return true;
    },
  });
  return stream as unknown as ProgressStream & { text: string };
}

/** What a terminal of that size shows in the end, with what has scrolled away. */
async function screen(text: string, { columns, rows }: { columns: number; rows: number }): Promise<string[]> {
  const terminal = new xterm.Terminal({ cols: columns, rows, allowProposedApi: true, convertEol: true });
  await new Promise<void>((resolve) => terminal.write(text, resolve));
  const { active } = terminal.buffer;
  const lines = Array.from({ length: active.length }, (_, row) => active.getLine(row)?.translateToString(true) ?? '');
  return lines.slice(0, lines.findLastIndex((line) => line !== '') + 1);
}

/** Resolves when something has been drawn that holds the text. */
async function drawn(stream: { text: string }, text: string): Promise<void> {
  const end = Date.now() + 3000;
  while (!stream.text.includes(text)) {
    if (Date.now() > end) throw new Error(`never drawn: ${text}, but ${JSON.stringify(stream.text)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const megabyte = 1_000_000;

describe('without a terminal', () => {
  test('what happens to a layer is a line each, and a countdown is told once', () => {
    const stream = fakeStream();
    const report = reportTo(stream);
    report.notice('latest: Pulling from library/alpine');
    const events: LayerEvent[] = [
      { phase: 'Pulling fs layer' },
      { phase: 'Downloading', current: 1, total: 9 },
      { phase: 'Retrying', detail: 'in 3 seconds (connection reset)' },
      { phase: 'Retrying', detail: 'in 2 seconds (connection reset)' },
      { phase: 'Downloading', current: 9, total: 9 },
      { phase: 'Extracting', current: 9, total: 9 },
      { phase: 'Pull complete' },
    ];
    for (const event of events) report.layer('3c8d1b2a4f5e', event);
    report.layer('aaaaaaaaaaaa', { phase: 'Already exists' });
    report.close();
    expect(stream.text.split('\n')).toEqual([
      'latest: Pulling from library/alpine',
      '3c8d1b2a4f5e: Pulling fs layer',
      '3c8d1b2a4f5e: Retrying in 3 seconds (connection reset)',
      '3c8d1b2a4f5e: Pull complete',
      'aaaaaaaaaaaa: Already exists',
      '',
    ]);
  });

  test('control characters of a registry never reach the stream', () => {
    const stream = fakeStream();
    const report = reportTo(stream);
    report.notice('bad\u001b]0;title\u0007\u009b31m\nsecond\u202eline');
    report.layer('\u001b[2Jx', { phase: 'Retrying', detail: 'in 1 second\r(\u0008)' });
    expect(stream.text).toBe('bad?]0;title??31m second?line\n?[2Jx: Retrying in 1 second (?)\n');
  });

  test('quiet is silent', () => {
    const stream = fakeStream({ columns: 80, rows: 24 });
    const report = reportTo(stream, { quiet: true });
    report.notice('one');
    report.layer('a', { phase: 'Pull complete' });
    report.close();
    expect(stream.text).toBe('');
  });
});

describe('on a terminal', () => {
  test('each layer has one line that changes in place, with notices above', async () => {
    const size = { columns: 70, rows: 10 };
    const stream = fakeStream(size);
    const report = reportTo(stream);
    report.notice('latest: Pulling from library/alpine');
    report.layer('aaaaaaaaaaaa', { phase: 'Downloading', current: 12.3 * megabyte, total: 45.6 * megabyte });
    report.layer('bbbbbbbbbbbb', { phase: 'Waiting' });
    await drawn(stream, 'Waiting');
    report.notice('mirror does not answer');
    report.layer('bbbbbbbbbbbb', { phase: 'Extracting', current: 5, total: 10 });
    await drawn(stream, 'Extracting');
    report.layer('aaaaaaaaaaaa', { phase: 'Pull complete' });
    report.close();
    report.close();
    const shown = await screen(stream.text, size);
    expect(shown).toEqual([
      'latest: Pulling from library/alpine',
      'mirror does not answer',
      'aaaaaaaaaaaa: Pull complete',
      'bbbbbbbbbbbb: Extracting',
    ]);
    // A cursor that was hidden would stay so after SIGKILL.
    expect(stream.text).not.toContain('\u001b[?25l');
  });

  test('a narrower terminal gets shorter lines from the next picture on', async () => {
    const stream = fakeStream({ columns: 80, rows: 10 });
    const report = reportTo(stream);
    report.layer('aaaaaaaaaaaa', { phase: 'Downloading', current: 20 * megabyte, total: 40 * megabyte });
    await drawn(stream, '20MB/40MB');
    stream.columns = 40;
    const before = stream.text.length;
    stream.emit('resize');
    const rest = {
      get text() {
        return stream.text.slice(before);
      },
    };
    await drawn(rest, '20MB');
    expect(rest.text).not.toContain('[=');
    report.close();
  });

  test('thousands of events make a few pictures', async () => {
    const stream = fakeStream({ columns: 80, rows: 10 });
    const report = reportTo(stream);
    for (let current = 0; current <= 10_000; current++)
      report.layer('aaaaaaaaaaaa', { phase: 'Downloading', current, total: 10_000 });
    await drawn(stream, '10kB/10kB');
    expect(stream.text.split('Downloading').length - 1).toBe(1);
    report.close();
  });

  test('more layers than rows: those that are worked on, and all of them at the end', async () => {
    const size = { columns: 60, rows: 5 };
    const stream = fakeStream(size);
    const report = reportTo(stream);
    for (let index = 0; index < 9; index++)
      report.layer(`layer${index}`, { phase: index < 6 ? 'Pull complete' : 'Waiting' });
    report.layer('layer7', { phase: 'Downloading', current: 1, total: 2 });
    await drawn(stream, 'more');
    expect(await screen(stream.text, size)).toEqual([
      'layer6: Waiting',
      `layer7: Downloading [${'='.repeat(12)}>${' '.repeat(13)}]       1B/2B`,
      'layer8: Waiting',
      '(6 more: 6 done, 0 to do)',
    ]);
    for (const index of [6, 7, 8]) report.layer(`layer${index}`, { phase: 'Pull complete' });
    report.close();
    const shown = await screen(stream.text, size);
    expect(shown).toEqual(Array.from({ length: 9 }, (_, index) => `layer${index}: Pull complete`));
  });
});

describe('a line', () => {
  const lineOf = (event: LayerEvent, columns: number) =>
    linesThatFit(new Map([['3c8d1b2a4f5e', event]]), { columns, rows: 24 })[0];

  test("is docker's", () => {
    expect(lineOf({ phase: 'Downloading', current: 12.3 * megabyte, total: 45.6 * megabyte }, 120)).toBe(
      `3c8d1b2a4f5e: Downloading [${'='.repeat(13)}>${' '.repeat(37)}]   12.3MB/45.6MB`,
    );
    expect(lineOf({ phase: 'Verifying Checksum', current: 1, total: 1 }, 80)).toBe('3c8d1b2a4f5e: Verifying Checksum');
  });

  test('never exceeds the terminal', () => {
    for (const columns of [1, 5, 20, 40, 45, 60, 79, 120]) {
      const line = lineOf({ phase: 'Downloading', current: 5, total: 10 }, columns);
      expect(line?.length).toBeLessThanOrEqual(columns);
    }
    // Two columns each.
    expect(lineOf({ phase: 'Retrying', detail: 'in 3 seconds (漢字漢字)' }, 44)).toBe(
      '3c8d1b2a4f5e: Retrying in 3 seconds (漢字漢…',
    );
  });

  test('an unknown or wrong total is left out', () => {
    expect(lineOf({ phase: 'Downloading', current: 2048 }, 80)).toBe('3c8d1b2a4f5e: Downloading 2.048kB');
    expect(lineOf({ phase: 'Downloading', current: 3000, total: 1000 }, 80)).toBe('3c8d1b2a4f5e: Downloading 3kB');
  });
});
