import { Redis } from 'ioredis';

/**
 * Looks for a Redis that would lose jobs by itself: one that evicts keys when its memory is full.
 * BullMQ only prints a warning of its own about it.
 *
 * @returns what is wrong and what to do about it; null where all is well, or where the server does
 *   not say (hosted ones may refuse CONFIG, an unreachable one is the worker's to report).
 */
export async function findEviction(redisUrl: string): Promise<string | null> {
  const redis = new Redis(redisUrl, { lazyConnect: true, retryStrategy: () => null });
  redis.on('error', () => {});
  try {
    await redis.connect();
    const [, policy] = (await redis.config('GET', 'maxmemory-policy')) as string[];
    if (policy === undefined || policy === 'noeviction') return null;
    return (
      `Redis evicts keys when its memory is full (maxmemory-policy is ${policy}), and jobs with ` +
      'them; set it to noeviction. Until then the marks still make every total right, only later.'
    );
  } catch {
    return null;
  } finally {
    redis.disconnect();
  }
}
