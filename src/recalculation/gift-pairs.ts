import type { Queryable } from '../database.ts';
import type { Id, Pair } from '../events/contract.ts';

/** The pairs to which the gift is assigned now, from idx_gift_person_gift. */
export async function pairsOfGift(db: Queryable, giftId: Id): Promise<Pair[]> {
  const { rows } = await db.query(
    `select distinct person_id::text as "personId", occasion_id::text as "occasionId"
       from gift_persons
      where gift_id = $1::bigint and occasion_id is not null`,
    [giftId],
  );
  return rows as unknown as Pair[];
}
