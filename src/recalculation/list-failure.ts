import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import type { PairResult } from './pairs.ts';

/** Lists a pair whose sum could not even be computed, in place of storing its total. */
export async function listFailure(
  client: Queryable,
  pair: Pair,
  reason: string,
): Promise<PairResult[]> {
  await client.query(
    `insert into recalculation_failures as f (person_id, occasion_id, reason)
     values ($1, $2, $3)
         on conflict (person_id, occasion_id) do update
        set reason = excluded.reason, total = null,
            attempts = f.attempts + 1, last_failed_at = excluded.last_failed_at`,
    [pair.personId, pair.occasionId, reason],
  );
  return [{ ...pair, outcome: 'failed', reason }];
}
