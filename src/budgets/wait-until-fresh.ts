import { setTimeout as sleep } from 'node:timers/promises';
import type { Pair } from '../events/contract.ts';
import type { Queryable } from '../queryable.ts';
import { type Budget, BUDGET_COLUMNS, toBudget } from './budget.ts';
import {
  IS_PENDING,
  IS_PENDING_BY_EVERYTHING,
  STANDS_FOR_BUDGET,
  WITH_EVERYTHING,
} from './marks.ts';
import { BudgetQueryError } from './page.ts';

/** The time is over and a mark is still pending: the stored total may not be right yet. */
export class BudgetNotFreshError extends Error {
  readonly code = 'BUDGET_NOT_FRESH';
  override readonly name = 'BudgetNotFreshError';
  readonly pair: Pair;
  readonly waitedMs: number;
  /** The age of the oldest mark of the pair; null where the database did not answer in time. */
  readonly oldestMarkSeconds: number | null;

  constructor(pair: Pair, waitedMs: number, oldestMarkSeconds: number | null) {
    const why =
      oldestMarkSeconds === null
        ? 'the database did not answer'
        : `its oldest mark is ${oldestMarkSeconds.toFixed(3)} s old`;
    super(`${describePair(pair)} is not fresh after ${Math.round(waitedMs)} ms: ${why}`);
    this.pair = pair;
    this.waitedMs = waitedMs;
    this.oldestMarkSeconds = oldestMarkSeconds;
  }
}

/**
 * The stored total is not the sum and will not become so by itself: the pair is listed in
 * `recalculation_failures` and no mark is pending that would have it tried again. An error of its
 * own, because to wait longer does not help, but to change the assignments does.
 */
export class BudgetFailedError extends Error {
  readonly code = 'BUDGET_FAILED';
  override readonly name = 'BudgetFailedError';
  readonly pair: Pair;
  /** Why the total cannot be stored. */
  readonly reason: string;

  constructor(pair: Pair, reason: string) {
    super(`the total of ${describePair(pair)} cannot be stored: ${reason}`);
    this.pair = pair;
    this.reason = reason;
  }
}

function describePair({ personId, occasionId }: Pair): string {
  return `the budget of person ${personId} for occasion ${occasionId}`;
}

const POLL_MIN_MS = 5;
const POLL_MAX_MS = 100;

/** How much later than its time-out a wait may end, where the database is slow to answer. */
const LAST_LOOK_MS = 1_000;

/**
 * Looks at the budget until no change that was committed before the call is pending any more: right
 * away, after 5 ms, and then after twice as long each time, up to 100 ms. No LISTEN, because it needs
 * a connection of its own for each waiter, and a poll is a few probes of indexes.
 *
 * The marks to wait for are those that the first look sees, which is to say, those up to the highest
 * id of that moment. To wait until there is none at all would never end on a pair that others keep
 * writing to: with two writers, not one wait of 200 ms in a hundred succeeded.
 *
 * A mark for everything has no such bound: where it comes upon a busy pair, it leaves it a mark of
 * its own, with a new id. Nor has a pair whose total could not be stored: a later mark may mend it.
 *
 * @returns null where there is no such budget, at once: then there is nothing to become right.
 */
export async function waitUntilFresh(
  db: Queryable,
  pair: Pair,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Budget | null> {
  const startedAt = performance.now();
  const deadline = startedAt + timeoutMs;
  let upToId: string | null = null;
  for (let delayMs = POLL_MIN_MS; ; delayMs = Math.min(POLL_MAX_MS, delayMs * 2)) {
    signal?.throwIfAborted();
    const isLast = performance.now() >= deadline;
    const asked = lookAt(db, pair, upToId, isLast);
    const look = await answered(asked, deadline + LAST_LOOK_MS, signal);
    if (look === null) return null;
    if (look === 'no answer') {
      throw new BudgetNotFreshError(pair, performance.now() - startedAt, null);
    }
    if (!look.isPending && look.failure !== null) throw new BudgetFailedError(pair, look.failure);
    const isFresh = !look.isPending || (upToId !== null && !look.isAwaited && !look.failure);
    if (isFresh) return look.budget;
    if (isLast) {
      throw new BudgetNotFreshError(pair, performance.now() - startedAt, look.oldestMarkSeconds);
    }
    if (delayMs === POLL_MIN_MS && !look.isPendingByEverything) upToId = look.lastMarkId;
    await pause(Math.min(delayMs, Math.max(0, deadline - performance.now())), signal);
  }
}

interface Look {
  readonly budget: Budget;
  readonly isPending: boolean;
  readonly isPendingByEverything: boolean;
  /** Whether one of the marks is pending that the first look saw. */
  readonly isAwaited: boolean;
  /** No mark of that moment has a higher id, whichever pair it is of. */
  readonly lastMarkId: string | null;
  readonly failure: string | null;
  readonly oldestMarkSeconds: number | null;
}

/**
 * Stored total, marks and failure are of one statement, so of one snapshot.
 *
 * @param withAge the age of the oldest mark is asked for once, at the end: a pair may have very many.
 */
async function lookAt(
  db: Queryable,
  pair: Pair,
  upToId: string | null,
  withAge: boolean,
): Promise<Look | null> {
  const { rows } = await db.query(
    `${WITH_EVERYTHING}
     select ${BUDGET_COLUMNS},
            ${IS_PENDING} as "isPending",
            ${IS_PENDING_BY_EVERYTHING} as "isPendingByEverything",
            exists (
              select from pending_recalculations m
               where m.person_id = b.person_id and m.occasion_id = b.occasion_id
                 and not m.everything and m.id <= $3::bigint
            ) as "isAwaited",
            (select id::text from pending_recalculations order by pending_recalculations.id desc limit 1)
              as "lastMarkId",
            f.reason as failure,
            ${withAge ? OLDEST_MARK_SECONDS : 'null'} as "oldestMarkSeconds"
       from person_occasions b
       left join recalculation_failures f
         on f.person_id = b.person_id and f.occasion_id = b.occasion_id
      where b.person_id = $1::bigint and b.occasion_id = $2::bigint`,
    [pair.personId, pair.occasionId, upToId],
  );
  const [row] = rows;
  return row === undefined ? null : { ...(row as unknown as Look), budget: toBudget(row) };
}

const OLDEST_MARK_SECONDS = `
  extract(epoch from clock_timestamp() - least(
    (select min(m.marked_at) from pending_recalculations m
      where m.person_id = b.person_id and m.occasion_id = b.occasion_id and not m.everything),
    (select min(e.marked_at) from everything e where ${STANDS_FOR_BUDGET})
  ))::float8`;

/** A query cannot be called back, but who waits for it can be told in time. */
async function answered<T>(
  query: Promise<T>,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<T | 'no answer'> {
  const settled = new AbortController();
  const leftMs = Math.max(0, deadline - performance.now());
  const either = signal ? AbortSignal.any([signal, settled.signal]) : settled.signal;
  const tooLate = sleep(leftMs, 'no answer' as const, { signal: either });
  try {
    return await Promise.race([query, tooLate]);
  } catch (error) {
    query.catch(() => {});
    signal?.throwIfAborted();
    throw error;
  } finally {
    tooLate.catch(() => {});
    settled.abort();
  }
}

async function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(delayMs, undefined, signal ? { signal } : {}).catch((error: unknown) => {
    signal?.throwIfAborted();
    throw error;
  });
}

const TIMEOUT_MAX_MS = 3_600_000;

export function parseTimeout(timeoutMs: number): number {
  if (Number.isInteger(timeoutMs) && timeoutMs >= 0 && timeoutMs <= TIMEOUT_MAX_MS) {
    return timeoutMs;
  }
  const expected = `a whole number of milliseconds from 0 to ${TIMEOUT_MAX_MS}`;
  throw BudgetQueryError.expected('timeoutMs', expected, timeoutMs);
}
