import type pg from 'pg';
import type { Pair } from '../../src/events/contract.ts';
import { catchUpOnce } from '../../src/recalculation/catch-up.ts';
import { type Access, createTestDatabase, type TestDatabase } from '../support/servers.ts';
import { type MakeRecalculation, SUM, type Writer } from './actors.ts';
import { type cannotSeeEachOther, type Lane, orders, runOrder } from './schedule.ts';

export interface Harness {
  readonly database: TestDatabase;
  readonly lanes: readonly Lane[];
  close(): Promise<void>;
}

/** Orders run at the same time, each on a pair and connections of its own. */
const LANES = 2;
/** Two recalculations, and behind them up to two writers. */
const ACTORS = ['worker', 'worker', 'upstream', 'upstream'] as const;

export async function openHarness(): Promise<Harness> {
  const database = await createTestDatabase();
  const connect = async ({ pool }: Pick<Access, 'pool'>) => preparing(await pool.connect());
  const lanes = await Promise.all(
    Array.from({ length: LANES }, async () => ({
      clients: await Promise.all(ACTORS.map(async (actor) => await connect(database[actor]))),
      observer: await connect(database),
    })),
  );
  await database.pool.query(`insert into gifts (name) values ('gift')`);
  await database.pool.query(`insert into occasions (name) values ('occasion')`);
  return {
    database,
    lanes,
    async close() {
      for (const { clients, observer } of lanes) {
        for (const client of [...clients, observer]) client.release();
      }
      await database.close();
    },
  };
}

/**
 * The client, with each statement prepared once: planning them anew for every order would be most
 * of the work.
 */
function preparing(client: pg.PoolClient): pg.PoolClient {
  const names = new Map<string, string>();
  const query = client.query.bind(client) as (config: pg.QueryConfig) => Promise<pg.QueryResult>;
  const named = async (
    statement: string | pg.QueryConfig,
    values?: unknown[],
  ): Promise<pg.QueryResult> => {
    if (typeof statement !== 'string') return await query(statement);
    const text = statement;
    if (values === undefined) return await query({ text });
    if (!names.has(text)) names.set(text, `s${names.size}`);
    return await query({ text, values, name: names.get(text)! });
  };
  return Object.assign(client, { query: named });
}

export function ordersOf(
  { lanes }: Harness,
  make: MakeRecalculation,
  writers: readonly Writer[],
  independent: typeof cannotSeeEachOther,
): number[][] {
  const actors = [make('', NO_PAIR, lanes[0]!), make('', NO_PAIR, lanes[0]!)];
  actors.push(...writers.map((writer) => writer.make(NO_PAIR)));
  const steps = actors.map((actor) => actor.steps.map(({ touches }) => touches));
  return [...orders(steps, independent)];
}

/** Runs every order on a pair of its own, and says what was violated by which. */
export async function violations(
  { database, lanes }: Harness,
  make: MakeRecalculation,
  writers: readonly Writer[],
  all: readonly number[][],
  isEnough = (found: readonly string[]) => found.length >= 10,
): Promise<string[]> {
  const found: string[] = [];
  const budgetExists = writers.every((writer) => writer.budgetExists);
  const pairs = await makePairs(database, all.length, budgetExists);
  const runs = all.map((order, place) => ({ order, pair: pairs[place]! })).values();
  await Promise.all(
    lanes.map(async (lane) => {
      for (const { order, pair } of runs) {
        if (isEnough(found)) return;
        found.push(...(await violationsOf(make, writers, lane, order, pair)));
      }
    }),
  );
  return found;
}

async function violationsOf(
  make: MakeRecalculation,
  writers: readonly Writer[],
  lane: Lane,
  order: readonly number[],
  pair: Pair,
): Promise<string[]> {
  const found: string[] = [];
  const recalculations = ['recalculation 1', 'recalculation 2'];
  const actors = recalculations.map((name) => make(name, pair, lane));
  actors.push(...writers.map((writer) => writer.make(pair)));
  const waited = await runOrder(lane, actors, order, async () => {
    const { stored, right, marks } = await look(lane, pair);
    if (stored !== right && marks === 0) found.push(`stored ${stored}, right ${right}, no mark`);
  });
  for (const name of recalculations) if (waited.has(name)) found.push(`${name} waited`);
  return found.map((what) => `${order.join('')}: ${what}`);
}

const NO_PAIR: Pair = { personId: '0', occasionId: '1' };

/** Pairs with a marked assignment of 10 that no recalculation has seen yet, or without a budget. */
async function makePairs(
  { pool }: TestDatabase,
  count: number,
  budgetExists: boolean,
): Promise<Pair[]> {
  const { rows } = await pool.query(
    `insert into persons (name) select 'person' from generate_series(1, $1::int)
     returning id::text as "personId", '1' as "occasionId"`,
    [count],
  );
  if (budgetExists) {
    const ids = [rows.map((row) => row.personId)];
    await pool.query(
      'insert into person_occasions (person_id, occasion_id) select unnest($1::bigint[]), 1',
      ids,
    );
    await pool.query(
      `insert into gift_persons (gift_id, person_id, occasion_id, amount)
       select 1, unnest($1::bigint[]), 1, 10`,
      ids,
    );
  }
  await pool.query('analyze person_occasions, gift_persons, pending_recalculations');
  return rows;
}

async function look(
  { observer }: Lane,
  pair: Pair,
): Promise<{ stored: string; right: string; marks: number }> {
  const { rows } = await observer.query(
    `select b.budget_spent as stored, ${SUM}::numeric(10,2) as right,
            (select count(*)::int from pending_recalculations m
              where m.person_id = b.person_id and m.occasion_id = b.occasion_id) as marks
       from person_occasions b where b.person_id = $1 and b.occasion_id = $2`,
    [pair.personId, pair.occasionId],
  );
  return rows[0] ?? { stored: '0.00', right: '0.00', marks: 0 };
}

/** How many totals are wrong once catch-up has nothing left to do. */
export async function wrongAtRest({ database }: Harness): Promise<number> {
  const timing = { pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 };
  while (await catchUpOnce({ pool: database.worker.pool, pairsMax: 500, ...timing }));
  const { rows } = await database.pool.query(
    `select (select count(*)::int from person_occasions b where budget_spent <> ${SUM})
          + (select count(*)::int from pending_recalculations) as wrong`,
  );
  return rows[0].wrong as number;
}
