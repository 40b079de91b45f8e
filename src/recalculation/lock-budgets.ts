import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { pairColumns } from './pairs.ts';

/**
 * Step 1: locks the budget rows of the pairs that nobody else holds.
 *
 * A statement of its own, so that the snapshot of every later one is younger than the locks.
 * NO KEY UPDATE, not UPDATE: an insert of an assignment, whose foreign key takes KEY SHARE on the
 * budget row, passes it without waiting. SKIP LOCKED: who never waits is in no deadlock.
 * The lateral subquery cannot be flattened because it locks, so each key is one index probe.
 *
 * @returns the places in `pairs` that are locked now, until the transaction ends.
 */
export async function lockBudgets(
  client: Queryable,
  pairs: readonly Pair[],
): Promise<ReadonlySet<number>> {
  const { rows } = await client.query(
    `select (k.place - 1)::int as place
       from unnest($1::bigint[], $2::bigint[]) with ordinality as k (person_id, occasion_id, place)
      cross join lateral (
        select 1
          from person_occasions b
         where b.person_id = k.person_id and b.occasion_id = k.occasion_id
           for no key update skip locked
      ) as locked`,
    pairColumns(pairs),
  );
  return new Set(rows.map((row) => row.place as number));
}
