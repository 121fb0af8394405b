import { describe, expect, test } from 'bun:test';
import type { Step } from '../../../src/host/steps.ts';
import { withUndoOf } from '../../../src/network/lifecycle.ts';

const step = (id: string, why = '', undo: string[] = [id]): Step => ({
  id,
  why,
  apply: [{ tool: 'ip', args: [why] }],
  undo: undo.map((path) => ({ tool: 'remove', path })),
});
const of = (steps: readonly Step[]) => steps.map(({ id, why }) => `${id}${why}`);

describe('what is to be undone of a network that is brought up where a part of it is', () => {
  test('what is there and is not planned again', () => {
    expect(of(withUndoOf([step('forward'), step('dir')], [step('dir', ' again')]))).toEqual(['forward', 'dir again']);
  });

  test('a place goes after what was made in it, although it was made again later', () => {
    expect(of(withUndoOf([step('dir'), step('server')], [step('dir', ' again'), step('rules')]))).toEqual([
      'dir again',
      'server',
      'rules',
    ]);
  });

  test('an earlier step with nothing to take back is forgotten, a new one is not', () => {
    expect(of(withUndoOf([step('old', '', [])], [step('new', '', []), step('other', '', [])]))).toEqual([
      'new',
      'other',
    ]);
  });
});
