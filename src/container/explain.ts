import type { Draft } from './create.ts';

export async function explainRun(_draft: Draft, _detach: boolean): Promise<string> {
  return '';
}
export async function explainRemove(_name: string): Promise<string> { return ''; }
