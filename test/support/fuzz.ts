import type { Parameters } from 'fast-check';

/**
 * How much a property is tried: always from the same seed, so that a failure is the same for everybody. MINIRUN_FUZZ_SEED is
 * another one, MINIRUN_FUZZ a multiple of the cases. A failure prints the seed and the smallest case that fast-check finds.
 *
 * @param factor of fast-check's 100 cases
 */
export function fuzzing<T>(factor = 1): Parameters<T> {
  return {
    seed: Number(process.env.MINIRUN_FUZZ_SEED ?? 20_261_122),
    numRuns: Math.ceil(100 * factor * Number(process.env.MINIRUN_FUZZ ?? 1)),
  };
}
