import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { Queryable } from '../../src/database.ts';
import { openGiftEventsQueue, type QueueConnection } from '../../src/queue.ts';
import type { Pair } from '../../src/events/contract.ts';
import { assign, wrongTotals } from '../support/budgets.ts';
import { untilAtRest } from './support/at-rest.ts';
import { startWriters } from './support/load.ts';
import { bareSender, describeQueues, openScene, startWorkerProcess } from './support/scene.ts';

const LOAD_MS = 6_000;
const ROUNDS = 2;
/** Every tenth pair. */
const OVERFLOWING = 20;
const MOST = '99999999.99';

describeQueues('sums that do not fit, mixed into batches of good pairs', (backend) => {
  it('are listed, harm no other, and are healed by a change that makes them fit', async () => {
    const scene = await openScene(backend);
    const { database, queue, pairs } = scene;
    const every = pairs.length / OVERFLOWING;
    const tooBig = pairs.filter((_, at) => at % every === 0);
    const others = pairs.filter((_, at) => at % every !== 0);
    const send = bareSender(queue);
    for (const pair of tooBig) await assign(database.upstream.pool, pair, MOST);
    await startWorkerProcess(database, queue);

    for (let round = 1; round <= ROUNDS; round += 1) {
      const writers = startWriters(database, others, {
        send: async (touched) => await send([...touched, tooBig[touched.length % OVERFLOWING]!]),
      });
      const extra: string[] = [];
      const overflow = sleep(LOAD_MS / 2).then(async () => {
        for (const pair of tooBig)
          extra.push(await assign(database.upstream.pool, pair, `${round}.01`));
        await send(tooBig);
      });
      await sleep(LOAD_MS);
      await overflow;
      const written = await writers.stop();
      const listedAfterMs = await untilAtRest(database.pool, queue);
      const listed = await listedFailures(database.pool);
      expect(listed).toEqual(expectedFailures(tooBig, 99_999_999.99 + round + 0.01));
      expect(await wrongPairs(database.pool)).toEqual(tooBig.map(keyOf).toSorted());
      expect(await failedReasons(queue)).toContainEqual(
        expect.stringMatching(/^budget_spent not stored for person .* does not fit budget_spent/),
      );

      // By marks alone in one round, by events too in the next.
      await database.pool.query('delete from gift_persons where id = any ($1::bigint[])', [extra]);
      if (round % 2 === 0) await send(tooBig);
      const healedAfterMs = await untilAtRest(database.pool, queue);
      console.log(
        `fault overflowing sums (${backend}), round ${round}: ${written.changes} changes, ` +
          `${written.events} events, ${listed.length} listed at rest after ` +
          `${(listedAfterMs / 1_000).toFixed(1)} s, healed after ${(healedAfterMs / 1_000).toFixed(1)} s`,
      );
      expect(written.changes).toBeGreaterThan(0);
      expect(await listedFailures(database.pool)).toEqual([]);
      expect(await wrongTotals(database.pool)).toEqual([]);
    }
  }, 120_000);
});

const keyOf = ({ personId, occasionId }: Pair): string => `${personId}-${occasionId}`;

async function wrongPairs(db: Queryable): Promise<string[]> {
  return (await wrongTotals(db)).map((wrong) => wrong.split(':')[0]!).toSorted();
}

async function listedFailures(db: Queryable): Promise<Record<string, unknown>[]> {
  const { rows } = await db.query(
    `select person_id || '-' || occasion_id as pair, reason, total
       from recalculation_failures order by 1`,
  );
  return rows;
}

function expectedFailures(pairs: readonly Pair[], sum: number): Record<string, unknown>[] {
  const total = sum.toFixed(2);
  const reason = `the sum ${total} does not fit budget_spent, a numeric(10,2)`;
  return pairs
    .map(keyOf)
    .toSorted()
    .map((pair) => ({ pair, reason, total }));
}

async function failedReasons(connection: QueueConnection) {
  const open = openGiftEventsQueue(connection, () => {});
  try {
    await open.connected();
    return (await open.queue.getFailed(0, 99)).map((job) => job.failedReason);
  } finally {
    await open.close();
  }
}
