import type pg from 'pg';
import type { Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';
import { RecalculationBatcher } from '../src/recalculation/batch.ts';
import { pairColumns } from '../src/recalculation/pairs.ts';
import { recalculate as recalculatePairs } from '../src/recalculation/recalculate.ts';
import { fill, makeTotalsWrong, mustBeRight, pairsInRandomOrder, USUAL_SIZE } from './data.ts';
import { drainSide } from './drain.ts';
import { measureAlternating, type Outcome, rateTable, ratioOf } from './measure.ts';
import { type BareQueue, openBareQueue } from './bare-queue.ts';
import { NAIVE_CONCURRENCY, runNaive } from './naive.ts';
import { withPostgres, withRedis } from './servers.ts';
import { startSide } from './worker-process.ts';

const NAIVE_PAIRS = 2_000;
const ROUNDS = 9;
const BATCH_PAIRS = 500;

/**
 * The engine alone, every pair changed, in random order: against what people write first, one job and
 * one transaction per pair (and, reported, those transactions without the jobs), and against one UPDATE
 * over the same list of pairs.
 */
export async function recalculate(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async ({ pool, url }) => {
        await fill(pool, USUAL_SIZE);
        const connection: QueueConnection = { backend: 'redis', url: redisUrl };
        const worker = await startSide({
          kind: 'naive',
          queue: connection,
          databaseUrl: url,
          concurrency: NAIVE_CONCURRENCY,
        });
        const queue = openBareQueue(connection);
        try {
          return await measure(pool, queue);
        } finally {
          await queue.close();
          await worker.stop();
        }
      }),
  );
}

async function measure(pool: pg.Pool, queue: BareQueue): Promise<Outcome> {
  const pairs = await pairsInRandomOrder(pool);
  const few = pairs.slice(0, NAIVE_PAIRS);
  const prepare = async () => await makeTotalsWrong(pool, pairs);
  const batcher = new RecalculationBatcher(
    async (batch) => await recalculatePairs(pool, batch),
    BATCH_PAIRS,
  );
  const measured = await measureAlternating(
    [
      drainSide('naive', pool, queue, NAIVE_PAIRS),
      { name: 'naive, without its queue', run: async () => await runNaive(pool, few) },
      { name: 'one statement', prepare, run: async () => await runOneStatement(pool, pairs) },
      { name: 'ours', prepare, run: async () => (await batcher.recalculate(pairs)).length },
    ],
    ROUNDS,
  );
  await mustBeRight(pool);
  const [naive, withoutQueue, oneStatement, ours] = measured;
  return {
    table: rateTable(measured, 'pairs/s'),
    figures: [
      { key: 'vs_naive', value: ratioOf(ours!, naive!), atLeast: 40 },
      { key: 'vs_one_statement', value: ratioOf(ours!, oneStatement!), atLeast: 0.5 },
      { key: 'vs_naive_without_queue', value: ratioOf(ours!, withoutQueue!) },
    ],
  };
}

/** The fastest form found: 1.5 times a subquery per row, on the same list. */
async function runOneStatement(pool: pg.Pool, pairs: readonly Pair[]): Promise<number> {
  const client = await pool.connect();
  try {
    await client.query(`begin; set local gift_budgets.recalculating = 'on'`);
    const { rowCount } = await client.query(
      `update person_occasions b set budget_spent = s.total
         from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id),
              (select person_id, occasion_id, sum(amount) as total
                 from gift_persons group by person_id, occasion_id) as s
        where b.person_id = k.person_id and b.occasion_id = k.occasion_id
          and s.person_id = k.person_id and s.occasion_id = k.occasion_id`,
      pairColumns(pairs),
    );
    await client.query('commit');
    return rowCount!;
  } finally {
    client.release();
  }
}
