import { MinirunError } from '../errors.ts';
import { applySteps } from '../host/executor.ts';
import type { Step } from '../host/steps.ts';

/** Something that is not as it should be (`audit.ts`). */
export interface Finding {
  /** `container`, `network`, `interface`, … */
  kind: string;
  name: string;
  problem: string;
  /** What is done about it, in the past: `taken down`. */
  remedy: string;
}

/** A finding with what mends it; without `mend` the reconcile does that every command begins with. */
export interface Found extends Finding {
  mend?: () => Promise<unknown>;
}

/** Mends by steps of its own. */
export function bySteps(...steps: Step[]): () => Promise<void> {
  return async () => applySteps(steps);
}

/** For what can only be told. */
export function cannot(what: string, why: string, remedy: string): () => Promise<never> {
  return async () => {
    throw new MinirunError(what, why, remedy);
  };
}
