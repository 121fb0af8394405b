/** Layers on their way at once, as in docker; as many for whatever else is done for each of many. */
const parallel = 3;

/**
 * Does work on several things at once, the first ones first. After a failure nothing more is begun; what is under way has
 * ended by the time that the first error is thrown.
 *
 * @param onFailure called at each failure, to end what is under way
 */
export async function inParallel<T>(
  things: Iterable<T>,
  work: (thing: T) => Promise<void>,
  onFailure?: (error: unknown) => void,
): Promise<void> {
  const waiting = [...things];
  let failure: { error: unknown } | undefined;
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined && failure === undefined; next = waiting.shift()) {
      try {
        await work(next);
      } catch (error) {
        failure ??= { error };
        onFailure?.(error);
      }
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  if (failure !== undefined) throw failure.error as Error;
}
