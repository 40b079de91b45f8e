import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';
import { pairColumns } from '../src/recalculation/pairs.ts';
import { openBareQueue } from './bare-queue.ts';
import { fill, makeTotalsWrong, mustBeRight, pairsInRandomOrder, USUAL_SIZE } from './data.ts';
import { median, type Outcome } from './measure.ts';
import { withPostgres, withRedis } from './servers.ts';
import { startOurs } from './worker-process.ts';

const ROUNDS = 9;
const EVENTS = 20_000;
const PAIRS = 20;
/** How many calls of the client are under way at once; fewer make the burst longer. */
const CALLS = { burst: 1_000, slow: 100 };

/** 20,000 events on 20 pairs through the client, whose totals are wrong before and in the middle. */
export async function burst(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async ({ pool, url }) => {
        await fill(pool, USUAL_SIZE);
        const connection: QueueConnection = { backend: 'redis', url: redisUrl };
        let sums = 0;
        const worker = await startOurs(
          url,
          connection,
          { GIFT_BUDGETS_SWEEP_MODE: 'off' },
          (line) => (sums += Number(/"pairs":(\d+)/.exec(line)?.[1] ?? 0)),
        );
        const queue = openBareQueue(connection);
        const client = new GiftEventClient(connection);
        const runRound = async (calls: number): Promise<BurstRound> => {
          const pairs = (await pairsInRandomOrder(pool)).slice(0, PAIRS);
          await makeTotalsWrong(pool, pairs);
          sums = 0;
          const startedAt = performance.now();
          await send(client, pairs, EVENTS / 2, calls);
          const pausedAt = performance.now();
          await makeTotalsWrong(pool, pairs);
          const goneOnAt = performance.now();
          await send(client, pairs, EVENTS / 2, calls);
          const sentMs = performance.now() - goneOnAt + pausedAt - startedAt;
          await untilRight(pool, pairs);
          const rightMs = performance.now() - goneOnAt + pausedAt - startedAt;
          await queue.untilDrained();
          return { sumsPerEvent: sums / EVENTS, rightVsEnqueue: rightMs / sentMs };
        };
        const rounds: BurstRound[] = [];
        const slowRounds: BurstRound[] = [];
        try {
          for (let round = 0; round < ROUNDS; round += 1) {
            rounds.push(await runRound(CALLS.burst));
            slowRounds.push(await runRound(CALLS.slow));
          }
          await mustBeRight(pool);
        } finally {
          await client.close();
          await queue.close();
          await worker.stop();
        }
        const sumsOf = (all: BurstRound[]) => median(all.map(({ sumsPerEvent }) => sumsPerEvent));
        return {
          table: [`${ROUNDS} rounds of ${EVENTS} events on ${PAIRS} pairs, ${CALLS.burst} at once`],
          figures: [
            { key: 'sums_per_event', value: sumsOf(rounds), atMost: 0.02 },
            {
              key: 'right_vs_enqueue',
              value: median(rounds.map(({ rightVsEnqueue }) => rightVsEnqueue)),
              atMost: 1.2,
            },
            { key: `sums_per_event_${CALLS.slow}_at_once`, value: sumsOf(slowRounds) },
          ],
        };
      }),
  );
}

interface BurstRound {
  readonly sumsPerEvent: number;
  /** The time until every total was right, in terms of the time until all was sent. */
  readonly rightVsEnqueue: number;
}

async function send(
  client: GiftEventClient,
  pairs: readonly Pair[],
  count: number,
  calls: number,
): Promise<void> {
  let sent = 0;
  const lane = async (): Promise<void> => {
    while (sent < count) await client.giftAssigned([pairs[(sent += 1) % pairs.length]!]);
  };
  await Promise.all(Array.from({ length: calls }, lane));
}

async function untilRight(pool: pg.Pool, pairs: readonly Pair[]): Promise<void> {
  for (;;) {
    const { rows } = await pool.query(
      `select from person_occasions b
         join unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)
              using (person_id, occasion_id)
        where b.budget_spent < 0`,
      pairColumns(pairs),
    );
    if (rows.length === 0) return;
    await sleep(1);
  }
}
