import { Redis } from 'ioredis';
import type { QueueConnection } from '../src/queue.ts';
import { measureDrains } from './drain.ts';
import { type Outcome, rateTable, ratioOf, whole } from './measure.ts';
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
        const { noop, naive, ours, hotShare, postgres } = await measureDrains({
          database,
          queues: { noop: redis(0), naive: redis(1), ours: redis(2) },
          events: 20_000,
          naiveEvents: 2_000,
          rounds: 9,
        });
        return {
          table: [
            ...rateTable([noop, naive, ours], 'events/s'),
            ...postgres,
            ...(await slowestCommands(redisUrl)),
          ],
          figures: [
            { key: 'vs_noop', value: ratioOf(ours, noop), atLeast: 0.8 },
            { key: 'vs_naive', value: ratioOf(ours, naive), atLeast: 5 },
            { key: 'hot_share', value: hotShare, atLeast: 0.95 },
          ],
        };
      }),
  );
}

/** What Redis says of the commands that took most of its time, those inside BullMQ's scripts too. */
async function slowestCommands(url: string): Promise<string[]> {
  const redis = new Redis(url);
  const stats = await redis.info('commandstats');
  redis.disconnect();
  const commands = [...stats.matchAll(/^cmdstat_(\S+):calls=(\d+),usec=(\d+)/gm)]
    .map(([, name, calls, us]) => ({ name: name!, calls: Number(calls), us: Number(us) }))
    .toSorted((a, b) => b.us - a.us)
    .slice(0, 5);
  return [
    'where Redis spends its time (INFO commandstats):',
    ...commands.map(
      ({ name, calls, us }) =>
        `  ${whole(us / 1_000).padStart(7)} ms ${calls} × ${name}, ${(us / calls).toFixed(1)} µs each`,
    ),
  ];
}
