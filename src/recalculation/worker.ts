import { type Job, UnrecoverableError, WaitingError, type Worker } from 'bullmq';
import type pg from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import { GiftEventInvalidError, parseGiftEvent, type Pair } from '../events/contract.ts';
import { createGiftEventsWorker, type QueueConnection } from '../queue.ts';
import { RecalculationBatcher } from './batch.ts';
import { pairsOfGift } from './gift-pairs.ts';
import { describeFailures, type JobOutcome, jobOutcome } from './job-outcome.ts';
import type { Observer } from './observer.ts';
import { recalculate } from './recalculate.ts';
import { retryThroughFaults } from './retry.ts';

export interface WorkerOptions {
  readonly pool: pg.Pool;
  readonly queue: QueueConnection;
  /** How many jobs are under way at once, sharing batches. */
  readonly concurrency: number;
  /** The most pairs of one transaction, 1 to 500. */
  readonly pairsMax: number;
  /** How long `stop` lets jobs finish before it gives them back to the queue, in milliseconds. */
  readonly drainTimeoutMs: number;
  /** Waits while the schema is another than the recalculation needs. */
  readonly untilSchemaFits?: (signal: AbortSignal) => Promise<void>;
  readonly observer?: Observer;
}

export interface RecalculationWorker {
  /** Milliseconds since the last gift event was taken; Infinity before the first. */
  sinceLastEventMs(): number;
  /** Takes no more jobs until `resume`; those under way go on. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Takes no more jobs, lets those under way finish until the drain timeout, gives the rest back
   * to the queue, and closes. Nothing stays locked: the next worker starts on them at once.
   */
  stop(): Promise<void>;
}

/** How long giving a job back to the queue may take; past it, its lock runs out by itself. */
const GIVE_BACK_TIMEOUT_MS = 2_000;

/** Starts the BullMQ worker that turns gift events into recalculations. */
export async function startWorker(options: WorkerOptions): Promise<RecalculationWorker> {
  const { observer } = options;
  const stopping = new AbortController();
  const inFlight = new Set<GivenJob>();
  let lastEventAt = -Infinity;
  const serve = createServe(options, stopping.signal);

  const worker = createGiftEventsWorker(
    options.queue,
    async (job, token) => {
      lastEventAt = performance.now();
      const given = { job, token };
      inFlight.add(given);
      try {
        return await serve(given);
      } finally {
        inFlight.delete(given);
      }
    },
    options.concurrency,
  );
  worker.on('error', (error) => observer?.queueError?.(error));
  worker.on('failed', (job, { message }) => {
    // BullMQ fails such a job itself, instead of handing it to the processor.
    if (job?.deferredFailure !== undefined) observer?.unreadable?.(job.id!, message);
  });
  await ready(worker, options.queue);
  worker.run().catch((error: Error) => observer?.queueError?.(error));

  return {
    sinceLastEventMs: () => performance.now() - lastEventAt,
    // Waiting for the active ones would cut the blocking connection, which `resume` does not mend.
    pause: async () => await worker.pause(true),
    resume: async () => await worker.resume(),
    async stop() {
      // Settled once BullMQ has also written what the last job returned.
      const drained = worker.pause();
      await settledWithin([drained], options.drainTimeoutMs);
      stopping.abort(new Stopping());
      await settledWithin([drained], GIVE_BACK_TIMEOUT_MS);
      // What hangs even now waits for an answer of PostgreSQL that may never come.
      await settledWithin([...inFlight].map(giveBack), GIVE_BACK_TIMEOUT_MS);
      await worker.close(true);
    },
  };
}

/**
 * BullMQ's PostgreSQL backend remembers a failed first connection for ever, so a worker that began
 * without its server would never serve a job. On Redis the connection makes itself.
 *
 * @throws why the server was not reached.
 */
async function ready(worker: Worker<unknown, unknown>, queue: QueueConnection): Promise<void> {
  if (queue.backend === 'redis') return;
  try {
    await worker.waitUntilReady();
  } catch (error) {
    await worker.close(true).catch(() => {});
    throw error;
  }
}

interface GivenJob {
  readonly job: Job;
  readonly token: string | undefined;
}

class Stopping extends Error {
  override readonly message = 'the worker is stopping';
}

function createServe(options: WorkerOptions, signal: AbortSignal) {
  const { pool, observer } = options;
  const onRetry = (error: unknown, attempt: number, delayMs: number): void =>
    observer?.retry?.('event', error, attempt, delayMs);
  const untilDone = <T>(work: () => Promise<T>): Promise<T> =>
    retryThroughFaults(
      async () => {
        await options.untilSchemaFits?.(signal);
        return await work();
      },
      signal,
      onRetry,
    );

  const batcher = new RecalculationBatcher(async (pairs) => {
    const startedAt = performance.now();
    const results = await untilDone(() => recalculate(pool, pairs));
    observer?.batch?.('event', results, performance.now() - startedAt);
    return results;
  }, options.pairsMax);

  async function affectedPairs(job: Job): Promise<readonly Pair[]> {
    const { data } = parseGiftEvent(job.name, job.data);
    return data.affected ?? (await untilDone(() => pairsOfGift(pool, data.giftId!)));
  }

  return async function serve(given: GivenJob): Promise<JobOutcome> {
    const { job } = given;
    const startedAt = performance.now();
    try {
      const results = await recalculatePairs(job);
      observer?.event?.(job.name, 'completed', performance.now() - startedAt);
      return jobOutcome(results);
    } catch (error) {
      if (signal.aborted) {
        await settledWithin([giveBack(given)], GIVE_BACK_TIMEOUT_MS);
        throw new WaitingError();
      }
      observer?.event?.(job.name, 'failed', performance.now() - startedAt);
      throw error instanceof GiftEventInvalidError ? new UnrecoverableError(error.message) : error;
    }
  };

  async function recalculatePairs(job: Job) {
    const results = await batcher.recalculate(await affectedPairs(job));
    const failures = describeFailures(results);
    if (failures !== null) throw new UnrecoverableError(failures);
    return results;
  }
}

async function giveBack({ job, token }: GivenJob): Promise<void> {
  await job.moveToWait(token);
}

async function settledWithin(work: Iterable<Promise<unknown>>, timeoutMs: number): Promise<void> {
  const timeout = new AbortController();
  const timer = sleep(timeoutMs, undefined, { signal: timeout.signal }).catch(() => {});
  await Promise.race([Promise.allSettled(work), timer]);
  timeout.abort();
}
