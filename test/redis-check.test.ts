import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { findEviction } from '../src/operations/redis-check.ts';
import { createOwnRedis, freePort, type OwnRedis } from './support/outages.ts';

describe.skipIf(inject('redisUrl') === null)('the check of Redis at start', () => {
  let redis: OwnRedis;

  beforeAll(async () => {
    redis = createOwnRedis(await freePort());
    await redis.start();
  });
  afterAll(async () => {
    await redis.stop();
  });

  it('warns of a Redis that evicts keys, and says what to set', async () => {
    await redis.run('config', 'set', 'maxmemory-policy', 'allkeys-lru');
    const warning = await findEviction(redis.connection.url);
    expect(warning).toContain('maxmemory-policy is allkeys-lru');
    expect(warning).toContain('set it to noeviction');
  });

  it('finds nothing wrong with noeviction', async () => {
    await redis.run('config', 'set', 'maxmemory-policy', 'noeviction');
    expect(await findEviction(redis.connection.url)).toBeNull();
  });

  it('leaves an unreachable Redis to those who report it', async () => {
    expect(await findEviction(`redis://127.0.0.1:${await freePort()}`)).toBeNull();
  });
});
