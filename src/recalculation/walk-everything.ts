import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';

/**
 * Takes the next chunk of pairs that the oldest mark for everything stands for, in key order.
 *
 * Such a mark stands for every budget whose key is greater than its own (all, where it has none).
 * Its key is moved past the chunk in the same transaction that recalculates the chunk, so a walk
 * over millions of budgets is many short transactions, and a killed one goes on where it was.
 * A budget that is created behind the walk has a mark of its own.
 *
 * @returns the chunk; null where no mark for everything is left, or another process holds it.
 */
export async function takeChunkOfEverything(
  client: Queryable,
  pairsMax: number,
): Promise<Pair[] | null> {
  const { rows: marks } = await client.query(
    `select id::text, person_id::text, occasion_id::text
       from pending_recalculations
      where everything
      order by pending_recalculations.id
      limit 1
        for update skip locked`,
  );
  const mark = marks[0];
  if (mark === undefined) return null;
  const { rows } = await client.query(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from person_occasions
      where $1::bigint is null or (person_id, occasion_id) > ($1::bigint, $2::bigint)
      order by person_id, occasion_id
      limit $3::int`,
    [mark.person_id, mark.occasion_id, pairsMax],
  );
  const chunk = rows as unknown as Pair[];
  const last = chunk.at(-1);
  if (chunk.length < pairsMax || last === undefined) {
    await client.query('delete from pending_recalculations where id = $1', [mark.id]);
  } else {
    await client.query(
      'update pending_recalculations set person_id = $2, occasion_id = $3 where id = $1',
      [mark.id, last.personId, last.occasionId],
    );
  }
  return chunk;
}
