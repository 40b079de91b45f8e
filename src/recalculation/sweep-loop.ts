import type pg from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Observer } from './observer.ts';
import { retryThroughFaults } from './retry.ts';
import { sweepChunk } from './sweep.ts';
import { beginSweep, type SweepMode, unfinishedSweep } from './sweep-record.ts';

export interface SweepLoopOptions {
  readonly pool: pg.Pool;
  readonly mode: SweepMode;
  /** A sweep is due when the last one began so long ago, in milliseconds. */
  readonly intervalMs: number;
  /** The most pairs of one chunk, 1 to 500. */
  readonly pairsMax: number;
  /** Waits while the schema is another than the recalculation needs. */
  readonly untilSchemaFits?: (signal: AbortSignal) => Promise<void>;
  readonly observer?: Observer;
}

/** How often a process asks whether a sweep is due or was left by somebody who died. */
const LOOK_MAX_MS = 10_000;

/**
 * The loop that sweeps when it is time. Any number of processes may run it: PostgreSQL has the
 * schedule, the cursor, and the lock that keeps two from being at one sweep.
 */
export function startSweeps(options: SweepLoopOptions): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const running = runSweeps(options, stopping.signal);
  return {
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

async function runSweeps(options: SweepLoopOptions, signal: AbortSignal): Promise<void> {
  const onRetry = (error: unknown, attempt: number, waitMs: number): void =>
    options.observer?.retry?.('sweep', error, attempt, waitMs);
  const lookMs = Math.min(LOOK_MAX_MS, Math.max(1, options.intervalMs / 10));
  while (!signal.aborted) {
    try {
      await retryThroughFaults(async () => await sweepIfDue(options, signal), signal, onRetry);
      // Jittered, so that processes which started together do not look in step.
      await sleep(lookMs * (0.5 + Math.random()), undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/** Begins a sweep if one is due, and goes on with whichever is unfinished and free. */
export async function sweepIfDue(
  options: SweepLoopOptions,
  signal: AbortSignal = new AbortController().signal,
): Promise<void> {
  const { pool, mode, intervalMs, pairsMax, observer } = options;
  await options.untilSchemaFits?.(signal);
  await beginSweep(pool, mode, intervalMs);
  const sweep = await unfinishedSweep(pool);
  while (sweep !== null && !signal.aborted) {
    await options.untilSchemaFits?.(signal);
    const chunk = await sweepChunk(pool, sweep.id, pairsMax);
    if (chunk === null) return; // finished, or another process is at it
    observer?.sweep?.(chunk);
  }
}
