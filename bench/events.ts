import type { QueueConnection } from '../src/queue.ts';
import { measureDrains } from './drain.ts';
import { type Outcome, rateTable, ratioOf } from './measure.ts';
import { withPostgres, withRedis } from './servers.ts';

/** 20,000 events on distinct random pairs, one worker process on Redis. */
export async function events(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async (database) => {
        const redis = (place: number): QueueConnection => ({
          backend: 'redis',
          url: `${redisUrl}/${place}`,
        });
        const { noop, naive, ours, hotShare } = await measureDrains({
          database,
          queues: { noop: redis(0), naive: redis(1), ours: redis(2) },
          events: 20_000,
          naiveEvents: 2_000,
          rounds: 9,
        });
        return {
          table: rateTable([noop, naive, ours], 'events/s'),
          figures: [
            { key: 'vs_noop', value: ratioOf(ours, noop), atLeast: 0.8 },
            { key: 'vs_naive', value: ratioOf(ours, naive), atLeast: 5 },
            { key: 'hot_share', value: hotShare, atLeast: 0.95 },
          ],
        };
      }),
  );
}
