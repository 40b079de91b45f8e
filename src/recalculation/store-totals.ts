import type { Session } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { column, pairColumns, type PairResult } from './pairs.ts';

/** `budget_spent` is numeric(10,2): it holds sums whose absolute value is below this. */
export const BUDGET_SPENT_LIMIT = '100000000';

/** A pair whose budget row this transaction has locked, with the total that is stored in it. */
export interface LockedPair extends Pair {
  readonly before: string;
}

/**
 * Step 3: sums the contributions of pairs that this transaction has locked, and stores each total
 * that differs. A sum that does not fit is not stored but listed in `recalculation_failures`; a
 * pair whose sum fits again leaves that list.
 *
 * The sum stands in a lateral subquery, computed once per key and never for the whole table;
 * a comparison with NaN is false, so NaN counts as not fitting.
 *
 * @returns one result per pair, in the order of `locked`.
 */
export async function storeTotals(
  client: Session,
  locked: readonly LockedPair[],
): Promise<PairResult[]> {
  const { rows } = await client.query({
    name: 'store-totals',
    text: `
      with s as materialized (
        select k.place, k.person_id, k.occasion_id, c.total,
               c.total > -${BUDGET_SPENT_LIMIT} and c.total < ${BUDGET_SPENT_LIMIT} as fits
          from unnest($1::bigint[], $2::bigint[])
               with ordinality as k (person_id, occasion_id, place)
         cross join lateral (
           select round(coalesce(sum(c.amount), 0), 2) as total
             from budget_contributions c
            where c.person_id = k.person_id and c.occasion_id = k.occasion_id
         ) as c
      ), stored as (
        update person_occasions b
           set budget_spent = s.total
          from s
         where s.fits and b.person_id = s.person_id and b.occasion_id = s.occasion_id
           and b.budget_spent <> s.total
      ), listed as (
        insert into recalculation_failures as f (person_id, occasion_id, reason, total)
        select s.person_id, s.occasion_id,
               format('the sum %s does not fit budget_spent, a numeric(10,2)', s.total),
               s.total::text
          from s
         where not s.fits
            on conflict (person_id, occasion_id) do update
           set reason = excluded.reason, total = excluded.total,
               attempts = f.attempts + 1, last_failed_at = excluded.last_failed_at
      ), mended as (
        select f.person_id, f.occasion_id
          from s
          join recalculation_failures f
            on f.person_id = s.person_id and f.occasion_id = s.occasion_id
         where s.fits
           for update of f skip locked
      ), forgotten as (
        delete from recalculation_failures f
         using mended
         where f.person_id = mended.person_id and f.occasion_id = mended.occasion_id
      )
      select string_agg(total::text, ',' order by place) as totals,
             string_agg((place - 1)::text, ',') filter (where not fits) as unfit
        from s`,
    values: pairColumns(locked),
  });
  const totals = column(rows[0]!.totals);
  const unfit = new Set(column(rows[0]!.unfit).map(Number));
  return locked.map((pair, place) => toResult(pair, totals[place]!, !unfit.has(place)));
}

function toResult(
  { personId, occasionId, before }: LockedPair,
  total: string,
  fits: boolean,
): PairResult {
  if (!fits) {
    const reason = `the sum ${total} does not fit budget_spent, a numeric(10,2)`;
    return { personId, occasionId, outcome: 'failed', reason };
  }
  const outcome = before === total ? 'unchanged' : 'changed';
  return { personId, occasionId, outcome, before, after: total };
}
