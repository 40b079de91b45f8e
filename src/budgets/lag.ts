import type { Queryable } from '../queryable.ts';

/** How far the stored totals are behind the assignments. */
export interface Lag {
  /** The age of the oldest mark; 0 where there is none. */
  readonly seconds: number;
  /** How many pairs are pending; at least so many where `isAtLeast` says so. */
  readonly pendingPairs: number;
  /** Whether counting ended early: more than 10,000 marks were there, or pairs. */
  readonly isAtLeast: boolean;
}

const COUNTED_MAX = 10_000;

/**
 * One query that reads 10,000 marks and 10,000 budgets at most, whatever there is: a few
 * milliseconds where a million marks are waiting.
 *
 * The age is that of the oldest of the first marks by id. Ids commit out of order, but they are
 * drawn in the same moment as the clock is read, so a mark that became visible late is still found
 * at its place; only marks that were drawn within the same microseconds may have changed places, and
 * those are all among the first.
 *
 * A mark for everything stands for the budgets behind its key, so it is those that are counted, for
 * the mark whose key is the least.
 */
export async function readLag(db: Queryable): Promise<Lag> {
  const { rows } = await db.query(
    `with marks as materialized (
       select person_id, occasion_id, everything, marked_at
         from pending_recalculations
        order by id
        limit ${COUNTED_MAX + 1}
     ), everything as materialized (
       select coalesce(person_id, -9223372036854775808) as person_id,
              coalesce(occasion_id, -9223372036854775808) as occasion_id
         from pending_recalculations
        where everything
        order by 1, 2
        limit 1
     ), behind as materialized (
       select b.person_id, b.occasion_id
         from everything e
        cross join lateral (
          select b.person_id, b.occasion_id
            from person_occasions b
           where (b.person_id, b.occasion_id) > (e.person_id, e.occasion_id)
           order by b.person_id, b.occasion_id
           limit ${COUNTED_MAX + 1}
        ) as b
     ), pairs as (
       select person_id, occasion_id from marks where not everything
        union
       select person_id, occasion_id from behind
     )
     select greatest(0, coalesce(
              extract(epoch from clock_timestamp() - (select min(marked_at) from marks)), 0
            ))::float8 as seconds,
            least(${COUNTED_MAX}, (select count(*) from pairs))::int as "pendingPairs",
            greatest(
              (select count(*) from marks), (select count(*) from behind),
              (select count(*) from pairs)
            ) > ${COUNTED_MAX} as "isAtLeast"`,
  );
  return rows[0] as unknown as Lag;
}
