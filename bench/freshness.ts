import { setTimeout as sleep } from 'node:timers/promises';
import { QueueEvents } from 'bullmq';
import type pg from 'pg';
import { GiftEventClient } from '../src/events/client.ts';
import { GIFT_EVENTS_QUEUE, type Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';
import { pairColumns, pairKey } from '../src/recalculation/pairs.ts';
import { openBareQueue } from './bare-queue.ts';
import { fill, GIFTS, mustBeRight, pairsInRandomOrder, USUAL_SIZE } from './data.ts';
import { median, type Outcome, quantile } from './measure.ts';
import { withPostgres, withRedis } from './servers.ts';
import { startOurs, startSide } from './worker-process.ts';
import { setMarking, tidy, untilNothingIsPending } from './writers.ts';

const ROUNDS = 9;
const CHANGES_PER_SECOND = 500;
const ROUND_MS = 2_500;
/** How often the reader looks; each look takes time of the processors that do the work. */
const LOOK_MS = 3;
/** Not measured: whoever had nothing to do looks seldom, and has to be woken up. */
const WARM_UP_MS = 500;

/** Measures from a commit until `watch` saw its effect, at a steady rate of changes. */
interface Way {
  readonly name: string;
  readonly prepare: () => Promise<void>;
  /** Tells others of the change, which is committed. */
  readonly tell: (pair: Pair) => Promise<void>;
  /** Resolves when the effect of the change is visible. */
  readonly watch: (pair: Pair, total: string) => Promise<void>;
}

/**
 * 500 changes a second: from the commit until the stored total is visible to a reader, with events
 * and with marks alone; against the round trip of a job that does nothing, under the same changes.
 */
export async function freshness(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async ({ pool, url }) => {
        await fill(pool, USUAL_SIZE);
        const queues = [0, 1].map((place): QueueConnection => ({
          backend: 'redis',
          url: `${redisUrl}/${place}`,
        }));
        const workers = await Promise.all([
          startSide({ kind: 'no-op', queue: queues[0]!, databaseUrl: url, concurrency: 200 }),
          startOurs(url, queues[1]!, { GIFT_BUDGETS_SWEEP_MODE: 'off' }),
        ]);
        const noop = openNoop(pool, queues[0]!);
        const client = new GiftEventClient(queues[1]!);
        const stored = watchStoredTotals(pool);
        const marked = async (): Promise<void> => {
          await tidy(pool);
          await setMarking(pool, true);
        };
        const ways: Way[] = [
          noop,
          {
            name: 'with events',
            prepare: marked,
            tell: async (pair) => void (await client.giftRepriced([pair])),
            watch: stored.watch,
          },
          { name: 'marks alone', prepare: marked, tell: async () => {}, watch: stored.watch },
        ];
        try {
          const p99 = new Map(ways.map(({ name }) => [name, [] as number[]]));
          const p50 = new Map(ways.map(({ name }) => [name, [] as number[]]));
          for (let round = 0; round < ROUNDS; round += 1) {
            for (let turn = 0; turn < ways.length; turn += 1) {
              const way = ways[(round + turn) % ways.length]!;
              await way.prepare();
              const latencies = await latenciesOf(pool, way);
              p99.get(way.name)!.push(quantile(latencies, 0.99));
              p50.get(way.name)!.push(median(latencies));
            }
          }
          await setMarking(pool, true);
          await untilNothingIsPending(pool);
          await tidy(pool);
          await mustBeRight(pool);
          const [noopP99, events, marks] = ways.map(({ name }) => p99.get(name)!);
          const over = (values: number[]) => median(values.map((v, i) => v / noopP99![i]!));
          return {
            table: ways.map(
              ({ name }) =>
                `${name.padEnd(30)} p50 ${median(p50.get(name)!).toFixed(1)} ms, ` +
                `p99 ${median(p99.get(name)!).toFixed(1)} ms (medians of ${ROUNDS} rounds)`,
            ),
            figures: [
              { key: 'p99_events_vs_noop', value: over(events!), atMost: 3 },
              { key: 'p99_marks_vs_noop', value: over(marks!) },
              { key: 'p99_events_ms', value: median(events!) },
              { key: 'p99_marks_ms', value: median(marks!) },
            ],
          };
        } finally {
          await client.close();
          await noop.close();
          await stored.stop();
          for (const worker of workers) await worker.stop();
        }
      }),
  );
}

/** Changes at a steady rate, each on a pair of its own; latencies in milliseconds. */
async function latenciesOf(pool: pg.Pool, way: Way): Promise<number[]> {
  const count = (CHANGES_PER_SECOND * ROUND_MS) / 1_000;
  const pairs = (await pairsInRandomOrder(pool)).slice(0, count);
  const startAt = performance.now() + 50;
  const latencies = await Promise.all(
    pairs.map(async (pair, place) => {
      await sleep(startAt + (place * 1_000) / CHANGES_PER_SECOND - performance.now());
      const total = await change(pool, pair);
      const committedAt = performance.now();
      const seen = way.watch(pair, total);
      await way.tell(pair);
      await seen;
      return performance.now() - committedAt;
    }),
  );
  return latencies.slice((CHANGES_PER_SECOND * WARM_UP_MS) / 1_000);
}

/** @returns the total that the pair then has. */
async function change(pool: pg.Pool, { personId, occasionId }: Pair): Promise<string> {
  const { rows } = await pool.query<{ total: string }>({
    name: 'change',
    text: `with inserted as (
             insert into gift_persons (gift_id, person_id, occasion_id, amount)
             values (1 + floor(random() * ${GIFTS}), $1, $2, 0.01)
           )
           select (budget_spent + 0.01)::text as total
             from person_occasions where person_id = $1 and occasion_id = $2`,
    values: [personId, occasionId],
  });
  return rows[0]!.total;
}

/** A reader that looks at the totals which are waited for, again and again. */
function watchStoredTotals(pool: pg.Pool) {
  const waiting = new Map<string, { pair: Pair; total: string; seen: () => void }>();
  let stopped = false;
  const watching = (async () => {
    while (!stopped) {
      await sleep(LOOK_MS);
      if (waiting.size === 0) continue;
      const entries = [...waiting.values()];
      const { rows } = await pool.query<Pair & { total: string }>({
        name: 'watch',
        text: `select person_id::text as "personId", occasion_id::text as "occasionId",
                      budget_spent::text as total
                 from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)
                 join person_occasions b using (person_id, occasion_id)`,
        values: pairColumns(entries.map(({ pair }) => pair)),
      });
      for (const { total, ...pair } of rows) {
        const key = pairKey(pair);
        if (waiting.get(key)?.total !== total) continue;
        waiting.get(key)!.seen();
        waiting.delete(key);
      }
    }
  })();
  return {
    watch: async (pair: Pair, total: string): Promise<void> =>
      await new Promise((seen) => {
        waiting.set(pairKey(pair), { pair, total, seen });
      }),
    async stop() {
      stopped = true;
      await watching;
    },
  };
}

/** A job that does nothing: seen when BullMQ tells that it is completed. */
function openNoop(pool: pg.Pool, connection: QueueConnection): Way & { close(): Promise<void> } {
  const queue = openBareQueue(connection);
  const events = new QueueEvents(GIFT_EVENTS_QUEUE, {
    connection: { url: (connection as { url: string }).url },
  });
  const waiting = new Map<string, () => void>();
  const early = new Set<string>();
  events.on('completed', ({ jobId }) => {
    const seen = waiting.get(jobId);
    if (seen) seen();
    else early.add(jobId);
    waiting.delete(jobId);
  });
  const told = new Map<Pair, PromiseWithResolvers<void>>();
  return {
    name: 'no-op job',
    async prepare() {
      await events.waitUntilReady();
      await tidy(pool);
      await setMarking(pool, false);
    },
    async tell(pair) {
      const jobId = await queue.add(pair);
      if (early.delete(jobId)) told.get(pair)!.resolve();
      else waiting.set(jobId, () => told.get(pair)!.resolve());
    },
    async watch(pair) {
      const seen = Promise.withResolvers<void>();
      told.set(pair, seen);
      await seen.promise;
      told.delete(pair);
    },
    async close() {
      await events.close();
      await queue.close();
    },
  };
}
