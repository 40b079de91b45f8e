import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Queryable } from '../src/database.ts';
import type { Pair } from '../src/events/contract.ts';
import { recalculateInTransaction } from '../src/recalculation/recalculate.ts';
import { inRecalculationTransaction } from '../src/recalculation/transaction.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const PERSONS = 5_000;
const OCCASIONS = 3;
const BATCH_PAIRS = 500;

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
  const { pool } = database;
  await pool.query(`insert into gifts (name) values ('gift')`);
  await pool.query(`insert into persons (name) select 'p' from generate_series(1, $1::int)`, [
    PERSONS,
  ]);
  await pool.query(`insert into occasions (name) select 'o' from generate_series(1, $1::int)`, [
    OCCASIONS,
  ]);
  await pool.query(
    `insert into person_occasions (person_id, occasion_id)
     select p.id, o.id from persons p cross join occasions o order by random()`,
  );
  await pool.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1, person_id, occasion_id, 1 from person_occasions, generate_series(1, 2)
      order by random()`,
  );
});
afterAll(async () => {
  await database.close();
});

it('a batch reads by index what it needs and no more, on tables never analysed too', async () => {
  for (const prepare of ['select 1', 'analyze']) {
    await database.pool.query(prepare);
    const { read } = await costs(await randomPairs());
    expect(read, prepare).toBe(0);
  }
});

it('nearly all new totals are written beside the old ones, touching no index', async () => {
  const { changed, updated, hot } = await costs(await randomPairs());
  expect(changed).toBeGreaterThan(BATCH_PAIRS / 2);
  expect(updated).toBe(changed);
  expect(hot).toBeGreaterThanOrEqual(0.98 * changed);
});

interface Counts {
  /** Rows read by sequential scans, of whatever table of ours. */
  readonly read: number;
  readonly updated: number;
  readonly hot: number;
}

/** What one batch costs by PostgreSQL's own count, and how many totals it changed. */
async function costs(pairs: readonly Pair[]): Promise<Counts & { changed: number }> {
  return await inRecalculationTransaction(database.worker.pool, async (client) => {
    // The counts may still hold what this session did before.
    const before = await counts(client);
    const results = await recalculateInTransaction(client, pairs);
    const after = await counts(client);
    return {
      changed: results.filter(({ outcome }) => outcome === 'changed').length,
      read: after.read - before.read,
      updated: after.updated - before.updated,
      hot: after.hot - before.hot,
    };
  });
}

async function counts(client: Queryable): Promise<Counts> {
  const { rows } = await client.query(
    `select sum(seq_tup_read)::int as read,
            (sum(n_tup_upd) filter (where relname = 'person_occasions'))::int as updated,
            (sum(n_tup_hot_upd) filter (where relname = 'person_occasions'))::int as hot
       from pg_stat_xact_user_tables`,
  );
  return rows[0] as unknown as Counts;
}

async function randomPairs(): Promise<Pair[]> {
  const { rows } = await database.pool.query(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from person_occasions order by random() limit $1::int`,
    [BATCH_PAIRS],
  );
  return rows;
}
