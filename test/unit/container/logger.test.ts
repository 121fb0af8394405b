import { expect, test } from 'bun:test';
import { loggerArgv } from '../../../src/container/logger.ts';
import { missingTool, skipOrFail } from '../../support/skip.ts';

test.skipIf(skipOrFail(missingTool('s6-log')))(
  'lines are neither cut nor lost, have timestamps, and the log is bounded',
  () => {
    const [program, ...args] = loggerArgv('/state/log/stdout') ?? [];
    const script = args.slice(args.indexOf('--') + 1);
    expect(program).toMatch(/^\/.*s6-log$/);
    // -b waits instead of dropping, -l 0 is no limit of a line's length.
    expect(args.slice(0, args.indexOf('--'))).toEqual(['-b', '-l', '0']);
    expect(script.at(-1)).toBe('/state/log/stdout');
    expect(script).toContain('t');
    const number = (letter: string) =>
      Number(script.find((word) => new RegExp(`^${letter}\\d+$`).test(word))?.slice(1));
    const bound = (number('n') + 1) * number('s');
    expect(bound).toBeGreaterThan(50_000_000);
    expect(bound).toBeLessThan(500_000_000);
  },
);
