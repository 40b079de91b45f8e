import type pg from 'pg';
import type { Session } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { clearMarks } from './clear-marks.ts';
import { faultOf } from './faults.ts';
import { listFailure } from './list-failure.ts';
import { lockBudgets } from './lock-budgets.ts';
import type { PairResult } from './pairs.ts';
import { type LockedPair, storeTotals } from './store-totals.ts';
import { inRecalculationTransaction } from './transaction.ts';
import { writeMarks } from './write-marks.ts';

export interface RecalculateOptions {
  /**
   * The pairs come from their own marks. Those stay while a pair is busy, so it needs no new one:
   * otherwise every look at a row that is held for long would add a mark.
   */
  readonly alreadyMarked?: boolean;
}

type Store = (client: Session, locked: readonly LockedPair[]) => Promise<PairResult[]>;

/**
 * Recalculates the stored totals of the pairs, in one transaction that never waits for a row lock:
 * lock, clear marks, sum and store; a pair that somebody else holds gets a mark and is left to
 * catch-up.
 *
 * A pair whose own data make the statements fail (an error in a replaced `budget_contributions`,
 * a check of somebody's own) is found by halving the batch and listed in `recalculation_failures`:
 * it holds up no other.
 *
 * @param pairs distinct pairs, 500 at most.
 * @returns one result per pair, in the order of `pairs`.
 * @throws whatever the database throws that is not the fault of a pair: it is worth trying again.
 */
export async function recalculate(
  pool: pg.Pool,
  pairs: readonly Pair[],
  options: RecalculateOptions = {},
): Promise<PairResult[]> {
  try {
    return await inRecalculationTransaction(pool, (client) =>
      recalculateInTransaction(client, pairs, options),
    );
  } catch (error) {
    const fault = faultOf(error);
    if (fault === 'environment') throw error;
    return pairs.length > 1
      ? await recalculateHalves(pool, pairs, options)
      : [await setAside(pool, pairs[0]!, options, fault, error as Error)];
  }
}

/** The steps of a recalculation, inside the recalculation transaction that `client` has open. */
export async function recalculateInTransaction(
  client: Session,
  pairs: readonly Pair[],
  options: RecalculateOptions = {},
  store: Store = storeTotals,
): Promise<PairResult[]> {
  if (pairs.length === 0) return [];
  const befores = await lockBudgets(client, pairs);
  const missing = await clearMarks(client, pairs, befores);
  const locked = Array.from(befores, ([place, before]) => ({ ...pairs[place]!, before }));
  const stored = locked.length > 0 ? await store(client, locked) : [];
  const storedAt = new Map([...befores.keys()].map((place, at) => [place, stored[at]!]));
  const busy = pairs.filter((_, place) => !befores.has(place) && !missing.has(place));
  if (busy.length > 0 && !options.alreadyMarked) await writeMarks(client, busy);
  return pairs.map(
    (pair, place) =>
      storedAt.get(place) ?? { ...pair, outcome: missing.has(place) ? 'missing' : 'busy' },
  );
}

async function recalculateHalves(
  pool: pg.Pool,
  pairs: readonly Pair[],
  options: RecalculateOptions,
): Promise<PairResult[]> {
  const middle = Math.ceil(pairs.length / 2);
  const first = await recalculate(pool, pairs.slice(0, middle), options);
  return [...first, ...(await recalculate(pool, pairs.slice(middle), options))];
}

/** A pair that fails on its own: listed if its data are at fault, left to catch-up if it was slow. */
async function setAside(
  pool: pg.Pool,
  pair: Pair,
  options: RecalculateOptions,
  fault: 'pair' | 'slow',
  error: Error,
): Promise<PairResult> {
  if (fault === 'slow') {
    if (!options.alreadyMarked) {
      await inRecalculationTransaction(pool, (client) => writeMarks(client, [pair]));
    }
    return { ...pair, outcome: 'busy' };
  }
  const list: Store = (client) => listFailure(client, pair, error.message);
  const [result] = await inRecalculationTransaction(pool, (client) =>
    recalculateInTransaction(client, [pair], options, list),
  );
  return result!;
}
