import { Queue, type RedisConnectionClient } from 'bullmq';
import { Redis } from 'ioredis';
import { GiftEventClient, type PairInput } from '../src/events/client.ts';
import { GIFT_EVENTS_QUEUE } from '../src/events/contract.ts';
import { measureAlternating, type Outcome, rateTable, ratioOf } from './measure.ts';
import { withRedis } from './servers.ts';

const EVENTS = 20_000;
const BULK_JOBS = 1_000;
const ROUNDS = 11;

/**
 * How fast one process adds events, each of a pair of its own: the client, which checks them and has
 * BullMQ deduplicate them by their pairs, against bare `addBulk` of the same data without any options.
 */
export async function client(): Promise<Outcome> {
  return await withRedis(async (url) => {
    const redis = new Redis(url);
    const connection = redis as unknown as RedisConnectionClient;
    const queue = new Queue(GIFT_EVENTS_QUEUE, { connection });
    const sender = new GiftEventClient({ backend: 'redis', url });
    const pairs = Array.from({ length: EVENTS }, (_, n) => ({ personId: n + 1, occasionId: 1 }));
    const prepare = async (): Promise<void> => {
      await mustHaveAll(queue);
      await redis.flushall();
    };
    try {
      await addBulk(queue, pairs);
      const [bare, ours] = await measureAlternating(
        [
          { name: 'bare addBulk', prepare, run: async () => await addBulk(queue, pairs) },
          { name: 'client', prepare, run: async () => (await sender.giftAssigned(pairs)).jobs },
        ],
        ROUNDS,
      );
      await mustHaveAll(queue);
      return {
        table: rateTable([bare!, ours!], 'events/s'),
        figures: [{ key: 'vs_add_bulk', value: ratioOf(ours!, bare!), atLeast: 0.5 }],
      };
    } finally {
      await sender.close();
      await queue.close();
      redis.disconnect();
    }
  });
}

async function addBulk(queue: Queue, pairs: readonly PairInput[]): Promise<number> {
  for (let from = 0; from < pairs.length; from += BULK_JOBS) {
    const chunk = pairs.slice(from, from + BULK_JOBS);
    await queue.addBulk(
      chunk.map((pair) => ({ name: 'gift.assigned', data: { version: 1, affected: [pair] } })),
    );
  }
  return pairs.length;
}

/** What either side added before is all in the queue. */
async function mustHaveAll(queue: Queue): Promise<void> {
  const waiting = await queue.getWaitingCount();
  if (waiting !== EVENTS) throw new Error(`${waiting} of ${EVENTS} events are in the queue`);
}
