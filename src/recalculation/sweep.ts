import type pg from 'pg';
import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { compareTotals, type ComparedChunk, type Difference } from './compare.ts';
import { faultOf } from './faults.ts';
import { listFailure } from './list-failure.ts';
import { pairKey, type PairResult } from './pairs.ts';
import { recalculateInTransaction } from './recalculate.ts';
import { advanceSweep, lockSweep, type SweepMode, type Sweep } from './sweep-record.ts';
import { inRecalculationTransaction } from './transaction.ts';
import { writeMarks } from './write-marks.ts';

/** A pair whose stored total was not its sum although no mark said so, and what became of it. */
export interface Finding extends Difference {
  /**
   * - `reported`: only that, the sweep was to repair nothing;
   * - `repaired`: the total is stored now;
   * - `marked`: somebody holds the row, so a mark leaves it to catch-up;
   * - `failed`: the sum cannot be stored, see the reason;
   * - `gone`: deleted, or made right by others, since it was found.
   */
  readonly outcome: 'reported' | 'repaired' | 'marked' | 'failed' | 'gone';
}

export interface SweptChunk {
  readonly sweep: Sweep;
  /** How many pairs of this chunk were compared. */
  readonly checked: number;
  readonly findings: readonly Finding[];
}

/**
 * How many pairs are compared in one statement for each that may be repaired: what a chunk costs
 * beside its pairs is divided by more of them, and the snapshot still lives for some 50 ms.
 */
const COMPARED_PER_REPAIRED = 10;

/**
 * Sweeps the next chunk of budgets, in key order: compares stored totals with their sums in one
 * statement, so under one snapshot, which tells drift from what is merely pending; repairs what
 * drifted through the same recalculation as everybody; and moves the stored cursor on, all in one
 * short transaction. Killed at any point, a sweep goes on where it was.
 *
 * The row of the sweep is locked meanwhile, and skipped where it is locked: of several processes
 * one is at it at a time, and where that one dies another can go on at once. A session's advisory
 * lock would do the same, but not behind a pooler in transaction mode, where it can outlive its
 * owner.
 *
 * @param repairedMax the most pairs that the chunk repairs, 1 to 500: what one recalculation may
 *   hold. The chunk ends where it has come to so many.
 * @returns null where the sweep is finished, or another process is at it just now.
 */
export async function sweepChunk(
  pool: pg.Pool,
  sweepId: string,
  repairedMax: number,
): Promise<SweptChunk | null> {
  const sweepWith = async (repair: Repair) =>
    await inRecalculationTransaction(pool, async (client) => {
      const sweep = await lockSweep(client, sweepId);
      if (sweep === null) return null;
      const chunk = await nextChunk(client, sweep, repairedMax);
      const findings = chunk === null ? [] : await treat(client, sweep.mode, chunk, repair);
      const swept = await advanceSweep(client, sweep, chunk, findings);
      return { sweep: swept, checked: chunk?.checked ?? 0, findings };
    });
  try {
    return await sweepWith(recalculateInTransaction);
  } catch (error) {
    if (faultOf(error) === 'environment') throw error;
    // The data of one pair break the transaction of all; catch-up finds out whose they are.
    return await sweepWith(leaveToCatchUp);
  }
}

type Repair = (client: Queryable, pairs: readonly Pair[]) => Promise<readonly PairResult[]>;

async function leaveToCatchUp(client: Queryable, pairs: readonly Pair[]): Promise<PairResult[]> {
  await writeMarks(client, pairs);
  return pairs.map((pair) => ({ ...pair, outcome: 'busy' }));
}

async function nextChunk(
  client: Queryable,
  { after }: Sweep,
  differencesMax: number,
): Promise<ComparedChunk | null> {
  const pairsMax = COMPARED_PER_REPAIRED * differencesMax;
  const options = { pairsMax, differencesMax, ...(after && { after }) };
  const { value } = await compareTotals(inSavepoints(client), options).next();
  return value ?? null;
}

/** An error of the data then leaves the transaction usable, to compare fewer pairs at a time. */
function inSavepoints(client: Queryable): Queryable {
  return {
    async query(text, values) {
      await client.query('savepoint compare');
      try {
        return await client.query(text, values);
      } catch (error) {
        await client.query('rollback to savepoint compare');
        throw error;
      }
    },
  };
}

/** What is pending is catch-up's to repair; what is listed as a failure is tried again. */
async function treat(
  client: Queryable,
  mode: SweepMode,
  { differences }: ComparedChunk,
  repair: Repair,
): Promise<Finding[]> {
  const drifted = differences.filter(({ state }) => state === 'wrong');
  if (mode === 'report') return drifted.map((found) => ({ ...found, outcome: 'reported' }));
  const results = new Map<string, PairResult>();
  const repairable = differences.filter(
    ({ state, right }) => state !== 'pending' && right !== null,
  );
  for (const result of await repair(client, repairable.map(toPair))) {
    results.set(pairKey(result), result);
  }
  for (const { right, reason, ...pair } of drifted) {
    if (right !== null) continue;
    const [listed] = await listFailure(
      client,
      toPair(pair),
      reason ?? 'the sum cannot be computed',
    );
    results.set(pairKey(pair), listed!);
  }
  return drifted.map((found) => toFinding(found, results.get(pairKey(found))!));
}

function toPair({ personId, occasionId }: Pair): Pair {
  return { personId, occasionId };
}

function toFinding(found: Difference, result: PairResult): Finding {
  switch (result.outcome) {
    case 'changed':
      return { ...found, right: result.after, outcome: 'repaired' };
    case 'busy':
      return { ...found, outcome: 'marked' };
    case 'failed':
      return { ...found, reason: result.reason, outcome: 'failed' };
    case 'unchanged':
    case 'missing':
      return { ...found, outcome: 'gone' };
  }
}
