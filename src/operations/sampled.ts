import { setTimeout as sleep } from 'node:timers/promises';
import { describeError } from '../describe-error.ts';

/** What was read last, or why nothing could be read. */
export type Reading<T> =
  | { readonly value: T; readonly problem?: never }
  | { readonly problem: string; readonly value?: never };

export interface SampledOptions {
  /** How old an answer may be for others who ask, in milliseconds. */
  readonly maxAgeMs: number;
  /** How long whoever asks waits for an answer, in milliseconds. */
  readonly waitMaxMs: number;
}

/** A slow source is left alone for this many times as long as it took. */
const PAUSE_PER_READ = 4;

/** While a source takes its time, its last answer stands for so long. */
const LAST_ANSWER_STANDS_MS = 30_000;

/**
 * Reads a source once for all who ask: never twice at a time, not again while the answer is young,
 * and seldom where it is slow. So a wall of open pages costs what one costs, and who asks gets an
 * answer in bounded time, be it that there is none.
 */
export function sampled<T>(
  read: () => Promise<T>,
  { maxAgeMs, waitMaxMs }: SampledOptions,
): () => Promise<Reading<T>> {
  let last: { reading: Reading<T>; at: number; tookMs: number } | undefined;
  let reading: Promise<void> | undefined;
  let startedAt = 0;

  const isYoung = (): boolean =>
    last !== undefined &&
    performance.now() - last.at < Math.max(maxAgeMs, PAUSE_PER_READ * last.tookMs);

  async function readOnce(): Promise<void> {
    startedAt = performance.now();
    const found: Reading<T> = await read().then(
      (value) => ({ value }),
      (error: unknown) => ({ problem: describeError(error) }),
    );
    const at = performance.now();
    last = { reading: found, at, tookMs: at - startedAt };
    reading = undefined;
  }

  return async () => {
    if (reading === undefined && isYoung()) return last!.reading;
    reading ??= readOnce();
    if (await isSettledWithin(reading, waitMaxMs)) return last!.reading;
    const now = performance.now();
    if (last !== undefined && now - last.at < LAST_ANSWER_STANDS_MS) return last.reading;
    return { problem: `no answer for ${Math.round((now - startedAt) / 1_000)} s` };
  };
}

async function isSettledWithin(work: Promise<void>, timeoutMs: number): Promise<boolean> {
  const timer = new AbortController();
  const tooLate = sleep(timeoutMs, false, { signal: timer.signal }).catch(() => false);
  const isSettled = await Promise.race([work.then(() => true), tooLate]);
  timer.abort();
  return isSettled;
}
