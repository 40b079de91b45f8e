import { mkdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { Finding } from '../src/operations/doctor/finding.ts';
import { checkRedis, judgeRedisVersion } from '../src/operations/doctor/redis.ts';
import { eventually } from './support/budgets.ts';
import { createOwnRedis, freePort, isOnPath, type OwnRedis, within } from './support/outages.ts';

describe.skipIf(inject('redisUrl') === null || !isOnPath('redis-server'))('the doctor', () => {
  let redis: OwnRedis;

  beforeAll(async () => {
    redis = createOwnRedis(await freePort());
    await redis.start();
    await redis.run('config', 'set', 'appendonly', 'yes');
  });
  afterAll(async () => {
    await redis.stop();
  });

  const look = async (url = redis.connection.url) =>
    (await checkRedis(url, 1_000)).filter(({ severity }) => severity !== 'ok');

  /** Types what a finding says; the configuration of this one is in no file that could be written. */
  const type = async ({ shell }: Finding) => {
    for (const line of shell) {
      const [command, ...args] = line.replace('redis-cli -u "$REDIS_URL" ', '').split(' ');
      if (args[0] !== 'rewrite') await redis.run(command!, ...args);
    }
  };

  it.each<[what: string, plant: string[], severity: string, says: RegExp]>([
    [
      'a Redis that evicts keys',
      ['config', 'set', 'maxmemory-policy', 'allkeys-lru'],
      'error',
      /^Redis evicts keys when its memory is full \(maxmemory-policy is allkeys-lru\)$/,
    ],
    [
      'a Redis that keeps nothing',
      ['config', 'set', 'appendonly', 'no'],
      'warning',
      /^Redis keeps nothing on its disk$/,
    ],
  ])('%s is told, and mended by what it says', async (_, plant, severity, says) => {
    await eventually(look, (left) => left.length === 0);
    await redis.run(...(plant as [string]));
    const found = await look();
    expect(found).toMatchObject([{ severity, found: expect.stringMatching(says) }]);
    await type(found[0]!);
    expect(await look()).toEqual([]);
  });

  it.each<[what: string, plant: string[], mend: string[], severity: string, says: RegExp]>([
    [
      'a Redis that is nearly full',
      ['config', 'set', 'maxmemory', '1000000'],
      ['config', 'set', 'maxmemory', '0'],
      'error',
      /^Redis uses \d+ % of its memory \(maxmemory\)$/,
    ],
    [
      'a replica',
      ['replicaof', '127.0.0.1', '1'],
      ['replicaof', 'no', 'one'],
      'error',
      /^this Redis is a replica$/,
    ],
  ])('%s is told', async (_, plant, mend, severity, says) => {
    await redis.run(...(plant as [string]));
    const found = await look();
    await redis.run(...(mend as [string]));
    expect(found).toMatchObject([{ severity, found: expect.stringMatching(says) }]);
    expect(await look()).toEqual([]);
  });

  it('a Redis that cannot write to its disk is told', async () => {
    const [, directory] = (await redis.ask('config', 'get', 'dir')) as [string, string];
    // A directory where its snapshot is to be.
    await mkdir(join(directory, 'dump.rdb'));
    await redis.run('bgsave', 'schedule');
    const found = await eventually(look, (problems) => problems.length > 0);
    expect(found).toMatchObject([
      { severity: 'error', found: 'Redis cannot write to its disk (rdb_last_bgsave_status)' },
    ]);
    await rmdir(join(directory, 'dump.rdb'));
    await type(found[0]!);
    await eventually(look, (left) => left.length === 0);
  });

  it('a Redis that refuses CONFIG is looked at all the same; one that refuses INFO says so', async () => {
    const port = new URL(redis.connection.url).port;
    const as = (user: string): string => `redis://${user}:pw@127.0.0.1:${port}`;
    await redis.run('acl', 'setuser', 'hosted', 'on', '>pw', '~*', '+@all', '-config');
    await redis.run('acl', 'setuser', 'mute', 'on', '>pw', '~*', '+@all', '-info');
    await redis.run('config', 'set', 'maxmemory-policy', 'volatile-lru');
    const [hosted, mute] = [await look(as('hosted')), await look(as('mute'))];
    await redis.run('config', 'set', 'maxmemory-policy', 'noeviction');
    expect(hosted).toMatchObject([{ found: expect.stringContaining('volatile-lru') }]);
    expect(mute).toMatchObject([
      { severity: 'error', found: expect.stringContaining('cannot be asked: NOPERM') },
    ]);
    expect(JSON.stringify([hosted, mute])).not.toContain('pw@');
  });

  it('a Redis that does not answer is told within seconds', async () => {
    redis.freeze();
    const found = await within(15_000, look());
    redis.thaw();
    expect(found).toMatchObject([
      { severity: 'error', found: 'Redis cannot be asked: Command timed out' },
    ]);
  });
});

it('a Redis that is old is told', () => {
  expect(judgeRedisVersion('4.0.9')).toMatchObject([{ severity: 'error' }]);
  expect(judgeRedisVersion('6.0.16')).toMatchObject([{ severity: 'warning' }]);
  expect(judgeRedisVersion('7.0.15')).toMatchObject([{ severity: 'ok' }]);
});

it.skipIf(inject('redisUrl') === null)('a Redis whose clock differs is told', async () => {
  const found = await checkRedis(inject('redisUrl')!, 1_000, () => Date.now() - 60_000);
  expect(found.map(({ found: what }) => what)).toContainEqual(
    expect.stringMatching(/^the clock of Redis is (59\.9|60\.\d) s ahead of this machine's$/),
  );
});
