import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { QueueConnection } from '../src/queue.ts';
import { type BareQueue, openBareQueue } from './bare-queue.ts';
import { fill, makeTotalsWrong, mustBeRight, pairsInRandomOrder, USUAL_SIZE } from './data.ts';
import { type Measured, measureAlternating, type Side } from './measure.ts';
import { NAIVE_CONCURRENCY } from './naive.ts';
import type { BenchDatabase } from './servers.ts';
import { startOurs, startSide } from './worker-process.ts';

/** The worker's default setting, and the no-op's. */
const CONCURRENCY = 200;

export interface DrainOptions {
  readonly database: BenchDatabase;
  /** Where the queue of each side lives. */
  readonly queues: Readonly<Record<'noop' | 'naive' | 'ours', QueueConnection>>;
  /** Events of one round, on distinct random pairs. */
  readonly events: number;
  readonly naiveEvents: number;
  readonly rounds: number;
}

export interface Drains {
  readonly noop: Measured;
  readonly naive: Measured;
  readonly ours: Measured;
  /** The share of our updates of person_occasions that touched no index, 0 to 1. */
  readonly hotShare: number;
  /** How the budgets are stored by then, and where PostgreSQL spent its time: for people. */
  readonly postgres: readonly string[];
}

/**
 * Events on distinct random pairs whose totals are wrong, added one by one by a bare producer while
 * the queue is paused, drained by one worker process a side; timed from the resumption of the
 * queue until the last job is completed.
 */
export async function measureDrains(options: DrainOptions): Promise<Drains> {
  const { database, queues } = options;
  const { pool, url: databaseUrl } = database;
  await fill(pool, USUAL_SIZE);
  const workers = await Promise.all([
    startSide({ kind: 'no-op', queue: queues.noop, databaseUrl, concurrency: CONCURRENCY }),
    startSide({ kind: 'naive', queue: queues.naive, databaseUrl, concurrency: NAIVE_CONCURRENCY }),
    // No sweep: it would do the work of the events.
    startOurs(databaseUrl, queues.ours, { GIFT_BUDGETS_SWEEP_MODE: 'off' }),
  ]);
  const [noopQueue, naiveQueue, oursQueue] = [
    openBareQueue(queues.noop),
    openBareQueue(queues.naive),
    openBareQueue(queues.ours),
  ];
  try {
    const oursSide = drainSide('ours', pool, oursQueue, options.events);
    const [noop, naive, ours] = await measureAlternating(
      [
        drainSide('no-op', pool, noopQueue, options.events),
        drainSide('naive', pool, naiveQueue, options.naiveEvents),
        oursSide,
      ],
      options.rounds,
    );
    const hotShare = await hotShareOf(pool, oursSide);
    const postgres = [...(await storageOfBudgets(pool)), ...(await slowestStatements(pool))];
    await mustBeRight(pool);
    return { noop: noop!, naive: naive!, ours: ours!, hotShare, postgres };
  } finally {
    for (const queue of [noopQueue, naiveQueue, oursQueue]) await queue.close();
    for (const worker of workers) await worker.stop();
  }
}

/** A round: events on random pairs whose totals are wrong, until the last job is completed. */
export function drainSide(name: string, pool: pg.Pool, queue: BareQueue, events: number): Side {
  return {
    name,
    async prepare() {
      const pairs = (await pairsInRandomOrder(pool)).slice(0, events);
      // What does nothing leaves no total right either.
      if (name !== 'no-op') await makeTotalsWrong(pool, pairs);
      await queue.pause();
      await queue.addOneByOne(pairs);
    },
    async run() {
      await queue.resume();
      await queue.untilDrained();
      return events;
    },
  };
}

/** One more round, with its updates counted; PostgreSQL tells them up to some seconds later. */
async function hotShareOf(pool: pg.Pool, ours: Side): Promise<number> {
  await ours.prepare!();
  await pool.query(`select pg_stat_reset_single_table_counters('person_occasions'::regclass)`);
  const updates = await ours.run();
  for (;;) {
    const { rows } = await pool.query<{ all: number; hot: number }>(
      `select n_tup_upd::int as all, n_tup_hot_upd::int as hot
         from pg_stat_user_tables where relname = 'person_occasions'`,
    );
    if (rows[0]!.all >= updates) return rows[0]!.hot / rows[0]!.all;
    await sleep(200);
  }
}

async function storageOfBudgets(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<{ storage: string }>(
    `select format('person_occasions: %s, %s for %s budgets', array_to_string(reloptions, ', '),
                   pg_size_pretty(pg_table_size(oid)), (select count(*) from person_occasions)) as storage
       from pg_class where oid = 'person_occasions'::regclass`,
  );
  return rows.map(({ storage }) => storage);
}

async function slowestStatements(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<{ call: string; ms: number; calls: string }>(
    `select left(regexp_replace(query, '\\s+', ' ', 'g'), 60) as call, calls,
            round(total_exec_time)::int as ms
       from pg_stat_statements order by total_exec_time desc limit 5`,
  );
  return [
    'where PostgreSQL spends its time (pg_stat_statements):',
    ...rows.map(({ call, ms, calls }) => `  ${String(ms).padStart(7)} ms ${calls} × ${call}`),
  ];
}
