import { Redis } from 'ioredis';
import { GIFT_EVENTS_QUEUE } from '../../src/events/contract.ts';
import type { QueueConnection } from '../../src/queue.ts';

export type RawProducer = ReturnType<typeof createRawProducer>;

/** A producer that knows Redis and writes jobs itself, field by field, as it should not. */
export function createRawProducer({
  url,
  prefix = 'bull',
}: QueueConnection & { backend: 'redis' }) {
  const redis = new Redis(url);
  const key = (name: string): string => `${prefix}:${GIFT_EVENTS_QUEUE}:${name}`;
  return {
    redis,
    key,
    /** A job with the fields of a good one but for those that are given; null leaves one out. */
    async add(id: string, fields: Readonly<Record<string, string | null>>): Promise<void> {
      const job = { ...GOOD, timestamp: String(Date.now()), ...fields };
      const present = Object.entries(job).filter(([, value]) => value !== null);
      await redis.hset(key(id), ...(present.flat() as string[]));
      await this.addId(id);
    },
    /** The id alone: whatever its key holds. */
    async addId(id: string): Promise<void> {
      await redis.lpush(key('wait'), id);
      await redis.zadd(key('marker'), 0, '0');
    },
    close: () => redis.disconnect(),
  };
}

const GOOD = {
  name: 'budget.recalculate',
  data: '{"version":1,"affected":[{"personId":987654321,"occasionId":1}]}',
  opts: '{}',
  delay: '0',
  priority: '0',
};
