import type pg from 'pg';
import type { Pair } from '../src/events/contract.ts';

/** The best found on two processors: 776, 815, 796 and 773 pairs/s with 4, 8, 16 and 32 (medians of 7). */
export const NAIVE_CONCURRENCY = 8;

/** What people write first: one transaction per pair, that locks, sums and stores. */
export async function recalculateNaively(pool: pg.Pool, pair: Pair): Promise<void> {
  const key = [pair.personId, pair.occasionId];
  const client = await pool.connect();
  try {
    await client.query('begin');
    await client.query(
      'select from person_occasions where person_id = $1 and occasion_id = $2 for update',
      key,
    );
    await client.query(
      `update person_occasions
          set budget_spent = (select coalesce(sum(amount), 0) from gift_persons
                               where person_id = $1 and occasion_id = $2)
        where person_id = $1 and occasion_id = $2`,
      key,
    );
    await client.query('commit');
  } finally {
    client.release();
  }
}

export async function runNaive(pool: pg.Pool, pairs: readonly Pair[]): Promise<number> {
  const left = pairs.values();
  const lane = async (): Promise<void> => {
    for (const pair of left) await recalculateNaively(pool, pair);
  };
  await Promise.all(Array.from({ length: NAIVE_CONCURRENCY }, lane));
  return pairs.length;
}
