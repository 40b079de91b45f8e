import { setTimeout as sleep } from 'node:timers/promises';
import { faultOf } from './faults.ts';

const DELAY_MIN_MS = 50;
const DELAY_MAX_MS = 2_000;

/** Told of each failed try, the first being 1, and of how long it waits before the next. */
export type OnRetry = (error: unknown, attempt: number, delayMs: number) => void;

/**
 * Tries the work until it succeeds, through any fault of the environment however long it lasts,
 * with a delay that doubles from 50 ms to 2 s and is jittered, so that many workers do not return
 * to a restarted server in step.
 *
 * Not left to BullMQ's attempts: they are the producer's to set, and a producer in another
 * language may set none, so that a restart of PostgreSQL would fail its job for good.
 *
 * @throws the reason of `signal` as soon as it is aborted; any other error at once.
 */
export async function retryThroughFaults<T>(
  work: () => Promise<T>,
  signal: AbortSignal,
  onRetry: OnRetry,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (faultOf(error) === 'pair') throw error;
      signal.throwIfAborted();
      const delayMs = Math.min(DELAY_MAX_MS, DELAY_MIN_MS * 2 ** (attempt - 1));
      const jitteredMs = delayMs * (0.5 + Math.random() / 2);
      onRetry(error, attempt, jitteredMs);
      await sleep(jitteredMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}
