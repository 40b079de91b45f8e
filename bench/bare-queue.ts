import { setTimeout as sleep } from 'node:timers/promises';
import { createPostgresBackend, Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { GIFT_EVENTS_QUEUE, type Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';

/** How many adds are under way at once: one by one, but not one round trip after the other. */
const ADDS_MAX = 50;
const POLL_MS = 10;

/** The queue of a producer that knows nothing but BullMQ: its jobs have no options. */
export interface BareQueue {
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** @returns the id of the job. */
  add(pair: Pair): Promise<string>;
  /** Adds one job a pair, and resolves when all are in the queue. */
  addOneByOne(pairs: readonly Pair[]): Promise<void>;
  /** @throws if a job failed. */
  untilDrained(): Promise<void>;
  close(): Promise<void>;
}

export function openBareQueue(connection: QueueConnection): BareQueue {
  const opened = open(connection);
  const { queue } = opened;
  const add = async (pair: Pair): Promise<string> =>
    (await queue.add('budget.recalculate', dataOf(pair))).id!;
  return {
    add,
    pause: async () => await queue.pause(),
    resume: async () => await queue.resume(),
    async addOneByOne(pairs) {
      const left = pairs.values();
      const lane = async (): Promise<void> => {
        for (const pair of left) await add(pair);
      };
      await Promise.all(Array.from({ length: ADDS_MAX }, lane));
    },
    async untilDrained() {
      for (;;) {
        const { waiting, active, failed } = await queue.getJobCounts('waiting', 'active', 'failed');
        if (failed !== 0) throw new Error(`${failed} jobs failed`);
        if (waiting === 0 && active === 0) return;
        await sleep(POLL_MS);
      }
    },
    close: async () => await opened.close(),
  };
}

function dataOf({ personId, occasionId }: Pair) {
  const affected = [{ personId: Number(personId), occasionId: Number(occasionId) }];
  return { version: 1, affected };
}

function open(connection: QueueConnection): { queue: Queue; close: () => Promise<void> } {
  if (connection.backend === 'postgres') {
    const { url, schema = 'bullmq' } = connection;
    const options = { connection: { connectionString: url, schema, max: 10 } };
    const queue = new Queue(GIFT_EVENTS_QUEUE, options, createPostgresBackend);
    return { queue: queue as unknown as Queue, close: async () => await queue.close() };
  }
  const redis = new Redis(connection.url, { maxRetriesPerRequest: null });
  const queue = new Queue(GIFT_EVENTS_QUEUE, { connection: redis as never });
  return {
    queue: queue as unknown as Queue,
    async close() {
      await queue.close();
      redis.disconnect();
    },
  };
}
