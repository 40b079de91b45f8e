import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';
import { openBareQueue } from './bare-queue.ts';
import { fill, makeTotalsWrong, mustBeRight, pairsInRandomOrder, USUAL_SIZE } from './data.ts';
import { median, type Outcome } from './measure.ts';
import { withPostgres, withRedis } from './servers.ts';
import { startOurs } from './worker-process.ts';

const ROUNDS = 9;
const EVENTS = 20_000;
const PAIRS = 20;
/** How many calls of the client are under way at once. */
const CALLS_MAX = 100;

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
        const timeRatios: number[] = [];
        try {
          for (let round = 0; round < ROUNDS; round += 1) {
            const pairs = (await pairsInRandomOrder(pool)).slice(0, PAIRS);
            await makeTotalsWrong(pool, pairs);
            const startedAt = performance.now();
            await send(client, pairs, EVENTS / 2);
            await makeTotalsWrong(pool, pairs);
            await send(client, pairs, EVENTS / 2);
            const sentMs = performance.now() - startedAt;
            await untilRight(pool, pairs);
            timeRatios.push((performance.now() - startedAt) / sentMs);
            await queue.untilDrained();
          }
          await mustBeRight(pool);
        } finally {
          await client.close();
          await queue.close();
          await worker.stop();
        }
        return {
          table: [`${ROUNDS} rounds of ${EVENTS} events on ${PAIRS} pairs: ${sums} sums computed`],
          figures: [
            { key: 'sums_per_event', value: sums / (ROUNDS * EVENTS), atMost: 0.02 },
            { key: 'right_vs_enqueue', value: median(timeRatios), atMost: 1.2 },
          ],
        };
      }),
  );
}

async function send(client: GiftEventClient, pairs: readonly Pair[], count: number): Promise<void> {
  let sent = 0;
  const lane = async (): Promise<void> => {
    while (sent < count) await client.giftAssigned([pairs[(sent += 1) % pairs.length]!]);
  };
  await Promise.all(Array.from({ length: CALLS_MAX }, lane));
}

async function untilRight(pool: pg.Pool, pairs: readonly Pair[]): Promise<void> {
  for (;;) {
    const { rows } = await pool.query(
      `select from person_occasions b
         join unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)
              using (person_id, occasion_id)
        where b.budget_spent < 0`,
      [pairs.map(({ personId }) => personId), pairs.map(({ occasionId }) => occasionId)],
    );
    if (rows.length === 0) return;
    await sleep(1);
  }
}
