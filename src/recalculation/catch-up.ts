import type pg from 'pg';
import type { Pair } from '../events/contract.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { faultOf } from './faults.ts';
import type { Observer } from './observer.ts';
import { type PairResult, pairsByKey } from './pairs.ts';
import { pickMarks } from './pick-marks.ts';
import { recalculate, recalculateInTransaction } from './recalculate.ts';
import { retryThroughFaults } from './retry.ts';
import { inRecalculationTransaction } from './transaction.ts';
import { takeChunkOfEverything } from './walk-everything.ts';
import { writeMarks } from './write-marks.ts';

export interface CatchUpOptions {
  readonly pool: pg.Pool;
  /** The most pairs of one transaction, 1 to 500. */
  readonly pairsMax: number;
  /** The delay between two looks at the marks while they come in, in milliseconds. */
  readonly pollMinMs: number;
  /** The delay it grows to while there are none, in milliseconds. */
  readonly pollMaxMs: number;
  /** The age that a mark must have now, in milliseconds: time for its event to come first. */
  readonly graceMs: () => number;
  /** Waits while the schema is another than the recalculation needs. */
  readonly untilSchemaFits?: (signal: AbortSignal) => Promise<void>;
  readonly observer?: Observer;
}

/** A pass over the marks starts again from the oldest after this long at the latest. */
const PASS_MAX_MS = 1_000;

/**
 * How many pages are recalculated at once when the last was full: one leaves the processor of the
 * database idle while ours works, and the other way round. Not when it had few pairs with many
 * marks each: two pages of one pair would hold up each other.
 */
const PAGES_AT_ONCE = 2;

/** A slow look (an old snapshot keeps dead marks in the way) is followed by a pause this long. */
const PAUSE_PER_LOOK = 4;

/**
 * The loop that recalculates marked pairs, straight from PostgreSQL. It does not need the queue:
 * with no event ever sent, or the queue gone, every total still becomes right. Any number of
 * processes may run it at the same time.
 */
export function startCatchUp(options: CatchUpOptions): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const running = runCatchUp(options, stopping.signal);
  return {
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

async function runCatchUp(options: CatchUpOptions, signal: AbortSignal): Promise<void> {
  const onRetry = (error: unknown, attempt: number, waitMs: number): void =>
    options.observer?.retry?.('mark', error, attempt, waitMs);
  let delayMs = options.pollMinMs;
  while (!signal.aborted) {
    const startedAt = performance.now();
    try {
      const look = async () => {
        await options.untilSchemaFits?.(signal);
        return await catchUpOnce(options, signal);
      };
      const found = await retryThroughFaults(look, signal, onRetry);
      delayMs = found ? options.pollMinMs : Math.min(options.pollMaxMs, delayMs * 2);
      const lookMs = performance.now() - startedAt;
      const pauseMs = found ? delayMs : Math.max(delayMs, PAUSE_PER_LOOK * lookMs);
      options.observer?.look?.(pauseMs);
      await sleep(pauseMs, undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/**
 * One pass over the marks that there are, oldest first, and one walk over everything if a mark
 * says so; each ends after a second at the latest, so that neither keeps the other waiting.
 *
 * @returns whether any total was recalculated; pairs that stayed busy do not count, so that a row
 *   which somebody holds for long does not keep the loop spinning.
 */
export async function catchUpOnce(
  options: CatchUpOptions,
  signal: AbortSignal = new AbortController().signal,
): Promise<boolean> {
  let recalculated = false;
  let afterId: string | undefined = '0';
  let pagesAtOnce = 1;
  for (const deadline = passDeadline(); afterId !== undefined && inTime(deadline, signal);) {
    const pages = await recalculatePages(options, afterId, pagesAtOnce);
    recalculated ||= pages.some(({ results }) => results.some(({ outcome }) => outcome !== 'busy'));
    // A page that is not full has seen all that no other page has locked.
    const isEnd = pages.some(({ lastId }) => lastId === undefined);
    afterId = isEnd ? undefined : maxId(pages.map(({ lastId }) => lastId!));
    const isOfFew = pages.some(({ results }) => results.length < options.pairsMax / 2);
    pagesAtOnce = isOfFew ? 1 : PAGES_AT_ONCE;
  }
  let walking = true;
  for (const deadline = passDeadline(); walking && inTime(deadline, signal);) {
    walking = (await recalculateChunkOfEverything(options)) !== null;
    recalculated ||= walking;
  }
  return recalculated;
}

/** Several pages of the same marks: each picks what the others have not locked. */
async function recalculatePages(
  options: CatchUpOptions,
  afterId: string,
  count: number,
): Promise<Page[]> {
  // All end before one fails the look: no page is left running behind it.
  const pages = await Promise.allSettled(
    Array.from({ length: count }, () => recalculateMarked(options, afterId)),
  );
  return pages.map((page) => {
    if (page.status === 'rejected') throw page.reason;
    return page.value;
  });
}

/** Ids are bigints as decimal strings. */
function maxId(ids: readonly string[]): string {
  return ids.reduce((max, id) => (BigInt(id) > BigInt(max) ? id : max));
}

function passDeadline(): number {
  return performance.now() + PASS_MAX_MS;
}

function inTime(deadline: number, signal: AbortSignal): boolean {
  return !signal.aborted && performance.now() < deadline;
}

interface Page {
  readonly results: readonly PairResult[];
  /** The id of its last mark, only where more may follow: the page was full. */
  readonly lastId: string | undefined;
}

async function recalculateMarked(
  { pool, pairsMax, graceMs, observer }: CatchUpOptions,
  afterId: string,
): Promise<Page> {
  const options = { alreadyMarked: true };
  const startedAt = performance.now();
  let pairs: readonly Pair[] = [];
  let lastId: string | undefined;
  const results = await inRecalculationTransaction(pool, async (client) => {
    const marks = await pickMarks(client, afterId, graceMs(), pairsMax);
    lastId = marks.length < pairsMax ? undefined : marks.at(-1)!.id;
    const marked = marks.map(({ personId, occasionId }) => ({ personId, occasionId }));
    pairs = [...pairsByKey(marked).values()];
    return await recalculateInTransaction(client, pairs, options);
  }).catch(async (error: unknown) => {
    // The data of a pair, or a time limit, broke the transaction; the marks are still there.
    if (faultOf(error) === 'environment' || pairs.length === 0) throw error;
    return await recalculate(pool, pairs, options);
  });
  if (results.length > 0) observer?.batch?.('mark', results, performance.now() - startedAt);
  return { results, lastId };
}

/** @returns null where there was no chunk to recalculate, or another process is at it. */
export async function recalculateChunkOfEverything(
  options: CatchUpOptions,
): Promise<readonly PairResult[] | null> {
  const { pool, pairsMax, observer } = options;
  const startedAt = performance.now();
  const results = await inRecalculationTransaction(pool, async (client) => {
    const chunk = await takeChunkOfEverything(client, pairsMax);
    return chunk && (await recalculateInTransaction(client, chunk));
  }).catch(async (error: unknown) => {
    if (faultOf(error) === 'environment') throw error;
    return await markChunkOfEverything(options);
  });
  if (results && results.length > 0) {
    observer?.batch?.('mark', results, performance.now() - startedAt);
  }
  return results;
}

/** Where the data of a pair break the chunk's transaction, its pairs get marks of their own. */
async function markChunkOfEverything({ pool, pairsMax }: CatchUpOptions): Promise<[] | null> {
  return await inRecalculationTransaction(pool, async (client) => {
    const chunk = await takeChunkOfEverything(client, pairsMax);
    if (chunk) await writeMarks(client, chunk);
    return chunk && [];
  });
}
