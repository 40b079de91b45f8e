import { Redis } from 'ioredis';

const ANSWER_TIMEOUT_MS = 5_000;

/**
 * Asks Redis a few things on a connection of its own, made once and closed after it.
 *
 * @throws why there is no connection, or what asking throws.
 */
export async function askRedis<T>(url: string, ask: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, {
    lazyConnect: true,
    // It asks INFO, and complains on the console where that is refused.
    enableReadyCheck: false,
    retryStrategy: () => null,
    connectTimeout: ANSWER_TIMEOUT_MS,
    commandTimeout: ANSWER_TIMEOUT_MS,
  });
  let reason: unknown;
  redis.on('error', (error) => (reason = error));
  try {
    await redis.connect();
    return await ask(redis);
  } catch (error) {
    // Where nothing listens, or a password is refused, that one may only say that the connection is closed.
    throw reason ?? error;
  } finally {
    redis.disconnect();
  }
}

/**
 * Looks for a Redis that would lose jobs by itself: one that evicts keys when its memory is full.
 * BullMQ only prints a warning of its own about it.
 *
 * @returns what is wrong and what to do about it; null where all is well, or where the server does
 *   not say (an unreachable one is the worker's to report).
 */
export async function findEviction(redisUrl: string): Promise<string | null> {
  try {
    const policy = await askRedis(redisUrl, readEvictionPolicy);
    if (policy === null || !isEvicting(policy)) return null;
    return (
      `${describeEviction(policy)}, and jobs with them; set it to noeviction. ` +
      'Until then the marks still make every total right, only later.'
    );
  } catch {
    return null;
  }
}

/** From INFO: hosted ones may refuse CONFIG. Null where it is not told. */
export async function readEvictionPolicy(redis: Redis): Promise<string | null> {
  const [, policy] = /^maxmemory_policy:(\S+)/m.exec(await redis.info('memory')) ?? [];
  return policy ?? null;
}

export function isEvicting(policy: string): boolean {
  return policy !== 'noeviction';
}

export function describeEviction(policy: string): string {
  return `Redis evicts keys when its memory is full (maxmemory-policy is ${policy})`;
}
