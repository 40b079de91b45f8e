import type { Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';
import { openBareQueue } from './bare-queue.ts';
import { fill, mustBeRight, pairsInRandomOrder, USUAL_SIZE } from './data.ts';
import { measureAlternating, type Outcome, rateTable, ratioOf, type Side } from './measure.ts';
import { NAIVE_CONCURRENCY } from './naive.ts';
import { type BenchDatabase, withPostgres, withRedis } from './servers.ts';
import { startOurs, startSide } from './worker-process.ts';
import {
  insertBulk,
  insertAsPrograms,
  setMarking,
  tidy,
  untilNothingIsPending,
} from './writers.ts';

const ROUNDS = 9;
/** Writers' rates are noisier. */
const WRITER_ROUNDS = 15;
const WRITERS = 8;
const WRITE_MS = 500;
const BULK_PAIRS = 20_000;
const NAIVE_PAIRS = 2_000;

/**
 * Plain SQL writers that send no event: how soon every total is right, against an upstream that
 * adds a job per pair for a naive worker; and what the marks cost the writers.
 */
export async function capture(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async (database) => {
        const { pool } = database;
        await fill(pool, USUAL_SIZE);
        const pairs = await pairsInRandomOrder(pool);
        const single = await measureAlternating(
          [true, false].map((marking) => singleRows(database, pairs, marking)),
          WRITER_ROUNDS,
        );
        const bulk = await measureAlternating(
          [true, false].map((marking) => bulkLoad(database, pairs, marking)),
          WRITER_ROUNDS,
        );
        await setMarking(pool, true);
        await tidy(pool);
        const captured = await measureCapture(database, redisUrl, pairs);
        await mustBeRight(pool);
        return {
          table: [
            ...rateTable(captured, 'pairs made right/s'),
            ...rateTable(single, 'rows/s by writers of single rows'),
            ...rateTable(bulk, 'rows/s by a bulk load'),
          ],
          figures: [
            { key: 'vs_naive', value: ratioOf(captured[0]!, captured[1]!), atLeast: 15 },
            { key: 'vs_naive_single_rows', value: ratioOf(captured[2]!, captured[3]!) },
            { key: 'write_rate', value: ratioOf(single[0]!, single[1]!), atLeast: 0.85 },
            { key: 'write_rate_bulk', value: ratioOf(bulk[0]!, bulk[1]!), atLeast: 0.6 },
          ],
        };
      }),
  );
}

function singleRows({ pool }: BenchDatabase, pairs: readonly Pair[], marking: boolean): Side {
  return {
    name: marking ? 'single rows, with marks' : 'single rows, without',
    prepare: async () => await setMarking(pool, marking),
    run: async () =>
      await insertAsPrograms(pool, WRITERS, WRITE_MS, () => pairs[randomBelow(pairs.length)]!),
  };
}

function bulkLoad({ pool }: BenchDatabase, pairs: readonly Pair[], marking: boolean): Side {
  return {
    name: marking ? 'bulk load, with marks' : 'bulk load, without',
    prepare: async () => await setMarking(pool, marking),
    run: async () => await insertBulk(pool, sample(pairs, BULK_PAIRS)),
  };
}

type Write = (pairs: readonly Pair[]) => Promise<void>;

async function measureCapture(
  { pool, url: databaseUrl }: BenchDatabase,
  redisUrl: string,
  pairs: readonly Pair[],
) {
  const naiveQueue: QueueConnection = { backend: 'redis', url: `${redisUrl}/0` };
  const workers = await Promise.all([
    startOurs(databaseUrl, { backend: 'redis', url: `${redisUrl}/1` }),
    startSide({ kind: 'naive', queue: naiveQueue, databaseUrl, concurrency: NAIVE_CONCURRENCY }),
  ]);
  const queue = openBareQueue(naiveQueue);
  const marksAlone = (name: string, count: number, write: Write): Side => ({
    name: `marks alone, ${name}`,
    prepare: async () => await setMarking(pool, true),
    async run() {
      await write(sample(pairs, count));
      await untilNothingIsPending(pool);
      return count;
    },
  });
  const naive = (name: string, count: number, write: Write): Side => ({
    name: `naive, ${name}`,
    prepare: async () => await setMarking(pool, false),
    async run() {
      const chosen = sample(pairs, count);
      await write(chosen);
      await queue.addOneByOne(chosen);
      await queue.untilDrained();
      return count;
    },
  });
  const inBulk: Write = async (chosen) => void (await insertBulk(pool, chosen));
  const singly: Write = async (chosen) => {
    const left = chosen.values();
    const lane = async (): Promise<void> => {
      for (const pair of left) await insertBulk(pool, [pair]);
    };
    await Promise.all(Array.from({ length: WRITERS }, lane));
  };
  try {
    return await measureAlternating(
      [
        marksAlone('a bulk load', BULK_PAIRS, inBulk),
        naive('a bulk load', NAIVE_PAIRS, inBulk),
        marksAlone('single rows', NAIVE_PAIRS, singly),
        naive('single rows', NAIVE_PAIRS, singly),
      ],
      ROUNDS,
    );
  } finally {
    await queue.close();
    for (const worker of workers) await worker.stop();
    await setMarking(pool, true);
  }
}

/** Neighbours in an order that is random already. */
function sample(pairs: readonly Pair[], count: number): Pair[] {
  const from = randomBelow(pairs.length - count);
  return pairs.slice(from, from + count);
}

function randomBelow(limit: number): number {
  return Math.floor(Math.random() * limit);
}
