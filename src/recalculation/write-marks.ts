import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import { pairColumns } from './pairs.ts';

/** Marks the pairs, "this pair may be wrong", so that catch-up recalculates them. */
export async function writeMarks(client: Queryable, pairs: readonly Pair[]): Promise<void> {
  await client.query(
    `insert into pending_recalculations (person_id, occasion_id)
     select person_id, occasion_id
       from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)`,
    pairColumns(pairs),
  );
}

/** Marks every budget there is; catch-up walks them in chunks. */
export async function markEverything(client: Queryable): Promise<void> {
  await client.query(`insert into pending_recalculations (everything) values (true)`);
}
