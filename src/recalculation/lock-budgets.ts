import type { Session } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { column, pairColumns } from './pairs.ts';

/**
 * Step 1: locks the budget rows of the pairs that nobody else holds.
 *
 * A statement of its own, so that the snapshot of every later one is younger than the locks.
 * NO KEY UPDATE, not UPDATE: an insert of an assignment, whose foreign key takes KEY SHARE on the
 * budget row, passes it without waiting. SKIP LOCKED: who never waits is in no deadlock.
 * The lateral subquery cannot be flattened because it locks, so each key is one index probe.
 * All is answered in one row, here and when totals are stored: with a row for each pair the whole
 * recalculation reached 0.94 of this rate.
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
      select string_agg((k.place - 1)::text, ',') as places,
             string_agg(locked.budget_spent::text, ',') as befores
        from unnest($1::bigint[], $2::bigint[]) with ordinality as k (person_id, occasion_id, place)
       cross join lateral (
         select b.budget_spent
           from person_occasions b
          where b.person_id = k.person_id and b.occasion_id = k.occasion_id
            for no key update skip locked
       ) as locked`,
    values: pairColumns(pairs),
  });
  const [places, befores] = [column(rows[0]!.places), column(rows[0]!.befores)];
  return new Map(places.map((place, at) => [Number(place), befores[at]!]));
}
