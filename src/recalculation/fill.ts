import { setTimeout as sleep } from 'node:timers/promises';
import type { Queryable } from '../database.ts';
import { catchUpOnce, type CatchUpOptions, recalculateChunkOfEverything } from './catch-up.ts';
import type { PairResult } from './pairs.ts';

/** How far the walk over everything has come. */
export interface FillProgress {
  /** Budgets that are still ahead of it, changed by whichever process is at it. */
  readonly left: number;
  /** What this process recalculated since the last time. */
  readonly results: readonly PairResult[];
}

/** While another process is at the walk, how often its progress is looked at. */
const WATCH_MS = 500;

/**
 * Walks whatever a mark for everything stands for, to the end, and then looks once at the marks of
 * single pairs, which those that were busy have. The walk is catch-up's, and so is its mark: workers may
 * be at it at the same time, and who is killed is gone on for.
 *
 * @returns through the generator, how far it is; it ends early where the signal says so.
 */
export async function* fill(
  options: CatchUpOptions,
  signal: AbortSignal,
): AsyncGenerator<FillProgress, void, undefined> {
  let left = await budgetsLeft(options.pool);
  while (left !== null && !signal.aborted) {
    const results = await recalculateChunkOfEverything(options);
    if (results === null) {
      // Finished, or in the hands of another process.
      left = await budgetsLeft(options.pool);
      if (left !== null) await sleep(WATCH_MS, undefined, { signal }).catch(() => {});
    } else {
      left = Math.max(0, left - results.length);
    }
    yield { left: left ?? 0, results: results ?? [] };
  }
  if (!signal.aborted) await catchUpOnce(options, signal);
}

/** How many budgets the marks for everything stand for; null where there is none. */
export async function budgetsLeft(db: Queryable): Promise<number | null> {
  const { rows } = await db.query(
    `select count(b.person_id)::float8 as left
       from (select coalesce(person_id, -9223372036854775808) as person_id,
                    coalesce(occasion_id, -9223372036854775808) as occasion_id
               from pending_recalculations
              where everything
              order by 1, 2
              limit 1) as e
       left join person_occasions b on (b.person_id, b.occasion_id) > (e.person_id, e.occasion_id)
      group by e.person_id`,
  );
  return (rows[0]?.left as number | undefined) ?? null;
}
