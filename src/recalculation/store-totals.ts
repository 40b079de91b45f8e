import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { pairColumns, type PairResult } from './pairs.ts';

/** `budget_spent` is numeric(10,2): it holds sums whose absolute value is below this. */
export const BUDGET_SPENT_LIMIT = '100000000';

/**
 * Step 3: sums the contributions of pairs that this transaction has locked, and stores each total
 * that differs. A sum that does not fit is not stored but listed in `recalculation_failures`; a
 * pair whose sum fits again leaves that list.
 *
 * The sum stands in a lateral subquery, computed once per key and never for the whole table;
 * a comparison with NaN is false, so NaN counts as not fitting.
 *
 * @param pairs pairs whose budget rows are locked.
 */
export async function storeTotals(
  client: Queryable,
  pairs: readonly Pair[],
): Promise<PairResult[]> {
  const { rows } = await client.query(
    `with s as materialized (
       select k.person_id, k.occasion_id, b.budget_spent as before, c.total,
              c.total > -${BUDGET_SPENT_LIMIT} and c.total < ${BUDGET_SPENT_LIMIT} as fits
         from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)
         join person_occasions b
           on b.person_id = k.person_id and b.occasion_id = k.occasion_id
        cross join lateral (
          select round(coalesce(sum(c.amount), 0), 2) as total
            from budget_contributions c
           where c.person_id = k.person_id and c.occasion_id = k.occasion_id
        ) as c
     ), stored as (
       update person_occasions b
          set budget_spent = s.total
         from s
        where s.fits and s.before <> s.total
          and b.person_id = s.person_id and b.occasion_id = s.occasion_id
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
     select person_id::text, occasion_id::text, before::text, total::text, fits from s`,
    pairColumns(pairs),
  );
  return rows.map(toResult);
}

function toResult(row: Record<string, unknown>): PairResult {
  const { person_id, occasion_id, before, total, fits } = row as Record<string, string>;
  const pair = { personId: person_id!, occasionId: occasion_id! };
  if (!fits) {
    const reason = `the sum ${total} does not fit budget_spent, a numeric(10,2)`;
    return { ...pair, outcome: 'failed', reason };
  }
  const outcome = before === total ? 'unchanged' : 'changed';
  return { ...pair, outcome, before: before!, after: total! };
}
