import type pg from 'pg';
import { migrate, openDatabase } from '../src/database.ts';
import { startEmbeddedPostgres } from '../src/embedded/server.ts';
import type { Pair } from '../src/events/contract.ts';
import { recalculate } from '../src/recalculation/recalculate.ts';
import { measureAlternating, report } from './measure.ts';

const PERSONS = 2_000;
const OCCASIONS = 10;
const ASSIGNMENTS_PER_PAIR = 10;
const NAIVE_PAIRS = 500;
const ROUNDS = 9;
const BATCH_PAIRS = 500;

/**
 * The engine alone, every pair changed, in random order: 500 pairs a transaction, against what
 * people write first (one transaction per pair that locks, sums and stores) and against one UPDATE
 * over all pairs, the least that PostgreSQL can do.
 */
export async function recalculateBench(): Promise<void> {
  const server = await startEmbeddedPostgres({});
  const database = await openDatabase(server.url);
  try {
    await migrate(database);
    const { pool } = database;
    await fill(pool);
    const pairs = await pairsInRandomOrder(pool);
    const measured = await measureAlternating(
      [
        { name: 'naive', run: () => runNaive(pool, pairs.slice(0, NAIVE_PAIRS)) },
        { name: 'recalculate', run: () => runBatches(pool, pairs) },
        { name: 'one statement', run: () => runOneStatement(pool, pairs.length) },
      ],
      ROUNDS,
      () => makeEveryTotalWrong(pool),
    );
    await runBatches(pool, pairs);
    await checkTotals(pool);
    const [naive, ours, oneStatement] = measured.map((side) => side.perSecond);
    report('recalculate', measured, [
      { key: 'vs_naive', value: ours! / naive!, atLeast: 40 },
      { key: 'vs_one_statement', value: ours! / oneStatement!, atLeast: 0.5 },
    ]);
  } finally {
    await database.close();
    await server.stop();
  }
}

async function fill(pool: pg.Pool): Promise<void> {
  await pool.query(
    `insert into persons (name) select 'p' || i from generate_series(1, $1::int) i`,
    [PERSONS],
  );
  await pool.query(
    `insert into occasions (name) select 'o' || i from generate_series(1, $1::int) i`,
    [OCCASIONS],
  );
  await pool.query(`insert into gifts (name) values ('g')`);
  await pool.query(
    `insert into person_occasions (person_id, occasion_id)
     select p.id, o.id from persons p cross join occasions o order by random()`,
  );
  await pool.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1, person_id, occasion_id, round((random() * 100)::numeric, 2)
       from person_occasions cross join generate_series(1, $1::int) order by random()`,
    [ASSIGNMENTS_PER_PAIR],
  );
  await pool.query('truncate pending_recalculations');
  await pool.query('vacuum analyze');
}

async function pairsInRandomOrder(pool: pg.Pool): Promise<Pair[]> {
  const { rows } = await pool.query<Pair>(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from person_occasions order by random()`,
  );
  return rows;
}

async function makeEveryTotalWrong(pool: pg.Pool): Promise<void> {
  await updateAsRecalculation(pool, 'update person_occasions set budget_spent = -1');
  await pool.query('vacuum person_occasions');
}

/** Without the trigger that marks a foreign change of budget_spent, as our own updates are. */
async function updateAsRecalculation(pool: pg.Pool, update: string): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    await client.query(`set local gift_budgets.recalculating = 'on'`);
    await client.query(update);
    await client.query('commit');
  } finally {
    client.release();
  }
}

async function runBatches(pool: pg.Pool, pairs: readonly Pair[]): Promise<number> {
  for (let from = 0; from < pairs.length; from += BATCH_PAIRS) {
    await recalculate(pool, pairs.slice(from, from + BATCH_PAIRS));
  }
  return pairs.length;
}

async function runNaive(pool: pg.Pool, pairs: readonly Pair[]): Promise<number> {
  const client = await pool.connect();
  try {
    for (const { personId, occasionId } of pairs) {
      const key = [personId, occasionId];
      await client.query('begin');
      await client.query(
        'select 1 from person_occasions where person_id = $1 and occasion_id = $2 for update',
        key,
      );
      const { rows } = await client.query(
        `select coalesce(sum(amount), 0) as total from gift_persons
          where person_id = $1 and occasion_id = $2`,
        key,
      );
      await client.query(
        `update person_occasions set budget_spent = $3 where person_id = $1 and occasion_id = $2`,
        [...key, rows[0].total],
      );
      await client.query('commit');
    }
    return pairs.length;
  } finally {
    client.release();
  }
}

async function runOneStatement(pool: pg.Pool, pairs: number): Promise<number> {
  await updateAsRecalculation(
    pool,
    `update person_occasions b set budget_spent = s.total
       from (select person_id, occasion_id, sum(amount) as total
               from gift_persons group by person_id, occasion_id) s
      where s.person_id = b.person_id and s.occasion_id = b.occasion_id`,
  );
  return pairs;
}

async function checkTotals(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query(
    `select count(*)::int as wrong from person_occasions b
      where b.budget_spent <> (select coalesce(sum(g.amount), 0) from gift_persons g
                                where g.person_id = b.person_id and g.occasion_id = b.occasion_id)`,
  );
  if (rows[0].wrong !== 0) throw new Error(`${rows[0].wrong} totals are wrong`);
}
