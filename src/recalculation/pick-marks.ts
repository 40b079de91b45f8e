import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';

/** A mark of one pair; `id` is a bigint as a decimal string. */
export interface Mark extends Pair {
  readonly id: string;
}

/**
 * Picks the oldest marks after `afterId` that have reached the age `graceMs`, and locks them until
 * the transaction ends, so that the catch-up loops of several processes pick different ones.
 *
 * Ids commit out of order: `afterId` only spreads one pass over the table, and a pass must start
 * again from '0' to find what committed behind it. The order names the column of the table: `id`
 * alone is the text that is selected, and all marks there are would be sorted by their digits.
 *
 * @param marksMax the most marks to pick; the marks of one pair count singly.
 */
export async function pickMarks(
  client: Queryable,
  afterId: string,
  graceMs: number,
  marksMax: number,
): Promise<Mark[]> {
  const { rows } = await client.query(
    `select id::text, person_id::text as "personId", occasion_id::text as "occasionId"
       from pending_recalculations
      where id > $1::bigint and not everything
        and marked_at <= statement_timestamp() - $2::double precision * interval '1 ms'
      order by pending_recalculations.id
      limit $3::int
        for update skip locked`,
    [afterId, graceMs, marksMax],
  );
  return rows as unknown as Mark[];
}
