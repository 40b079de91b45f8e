import type { Session } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { pairColumns } from './pairs.ts';

/**
 * Step 2: clears the marks of the locked pairs, and the marks and failures of pairs that have no
 * budget. Before the sum, so that a mark is only ever cleared by a sum that sees its change.
 *
 * Whether a pair has a budget is asked of this statement's own snapshot, the one that sees the
 * marks: a pair that merely was not locked in step 1 may have got its budget, an assignment and
 * the mark in between, and that mark must stay.
 *
 * @returns the places in `pairs` that have no budget.
 */
export async function clearMarks(
  client: Session,
  pairs: readonly Pair[],
  locked: { has(place: number): boolean },
): Promise<ReadonlySet<number>> {
  const { rows } = await client.query({
    name: 'clear-marks',
    text: `
      with k as materialized (
        select k.person_id, k.occasion_id, k.place, k.locked,
               not k.locked and not exists (
                 select from person_occasions b
                  where b.person_id = k.person_id and b.occasion_id = k.occasion_id
               ) as missing
          from unnest($1::bigint[], $2::bigint[], $3::boolean[])
               with ordinality as k (person_id, occasion_id, locked, place)
      ), picked as (
        select m.id
          from k
         cross join lateral (
           select m.id
             from pending_recalculations m
            where m.person_id = k.person_id and m.occasion_id = k.occasion_id and not m.everything
              for update skip locked
         ) as m
         where k.locked or k.missing
      ), cleared as (
        delete from pending_recalculations where id = any (array(select id from picked))
      ), listed as (
        select f.person_id, f.occasion_id
          from k
          join recalculation_failures f
            on f.person_id = k.person_id and f.occasion_id = k.occasion_id
         where k.missing
           for update of f skip locked
      ), forgotten as (
        delete from recalculation_failures f
         using listed
         where f.person_id = listed.person_id and f.occasion_id = listed.occasion_id
      )
      select (place - 1)::int as place from k where missing`,
    values: [...pairColumns(pairs), `{${pairs.map((_, place) => locked.has(place)).join()}}`],
  });
  return new Set(rows.map((row) => row.place as number));
}
