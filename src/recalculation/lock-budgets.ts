import type { Session } from '../database.ts';
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
 * @returns the stored totals of the pairs that are locked now, until the transaction ends, by their
 *   places in `pairs`. Nobody else can change them meanwhile.
 */
export async function lockBudgets(
  client: Session,
  pairs: readonly Pair[],
): Promise<ReadonlyMap<number, string>> {
  const { rows } = await client.query({
    name: 'lock-budgets',
    text: `
      select (k.place - 1)::int as place, locked.budget_spent::text as before
        from unnest($1::bigint[], $2::bigint[]) with ordinality as k (person_id, occasion_id, place)
       cross join lateral (
         select b.budget_spent
           from person_occasions b
          where b.person_id = k.person_id and b.occasion_id = k.occasion_id
            for no key update skip locked
       ) as locked`,
    values: pairColumns(pairs),
  });
  return new Map(rows.map(({ place, before }) => [place as number, before as string]));
}
