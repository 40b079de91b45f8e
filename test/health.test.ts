import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { createProgress } from '../src/operations/progress.ts';
import { openApp, type TestApp } from './support/app.ts';
import { eventually } from './support/budgets.ts';
import { createOwnRedis, createProxy, freePort, isOnPath, type Proxy } from './support/outages.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';
import type { QueueConnection } from '../src/queue.ts';

describe('a process stands still', () => {
  let time = 0;
  let isHeld = false;
  const progress = createProgress(
    () => isHeld,
    () => time,
  );
  const later = (ms: number): string | null => {
    time += ms;
    return progress.whatStandsStill();
  };

  it('when catch-up does not look at the marks half a minute after it should have', () => {
    progress.observer.look!(250);
    expect(later(30_000)).toBeNull();
    expect(later(1_000)).toBe('catch-up has not looked at the marks for 31 s');
    progress.observer.look!(60_000);
    expect(later(89_000)).toBeNull();
    expect(later(2_000)).toContain('91 s');
  });

  it('not while it tries again, however long PostgreSQL is away', () => {
    for (let attempt = 1; attempt < 100; attempt += 1) {
      progress.observer.retry!('mark', new Error('away'), attempt, 2_000);
      expect(later(2_100)).toBeNull();
    }
    progress.observer.retry!('event', new Error('away'), 1, 2_000);
    expect(later(30_000)).not.toBeNull();
  });

  it('not while it recalculates, nor while it waits for the schema to fit', () => {
    progress.observer.batch!('mark', [], 1);
    expect(later(29_000)).toBeNull();
    isHeld = true;
    expect(later(100_000)).toBeNull();
    isHeld = false;
    expect(later(29_000)).toBeNull();
    expect(later(2_000)).not.toBeNull();
  });
});

describe('the probes', () => {
  let database: TestDatabase;
  let app: TestApp | undefined;

  beforeAll(async () => {
    database = await createTestDatabase();
  });
  afterEach(async () => {
    await app?.stop();
    app = undefined;
  });
  afterAll(async () => {
    await database.close();
  });

  const probe = async (path: string) => {
    const response = await fetch(`${app!.url}${path}`);
    return { status: response.status, ...((await response.json()) as Probed) };
  };
  const through = (url: string) => ({ ...database, worker: { ...database.worker, url } });
  const becomesReady = async (status: number) =>
    await eventually(
      async () => await probe('/readyz'),
      (answer) => answer.status === status,
    );

  it('with PostgreSQL away: not ready, and says so; healthy; then ready again', async () => {
    const port = await freePort();
    const proxy: Proxy = createProxy(port, new URL(database.worker.url));
    await proxy.start();
    const url = database.worker.url.replace(/:\d+\//, `:${port}/`);
    const queue: QueueConnection = { backend: 'postgres', url };
    app = await openApp(through(url), queue);
    expect(await probe('/readyz')).toMatchObject({ status: 200, ready: true });
    await proxy.stop();
    const { problems } = await becomesReady(503);
    expect(problems!.database).toContain('ECONNREFUSED');
    expect(problems!.migrations).toContain('the database does not answer');
    expect(await probe('/healthz')).toEqual({ status: 200, healthy: true });
    const page = await (await fetch(app.url)).text();
    expect(page).toContain('PostgreSQL does not answer: connect ECONNREFUSED');
    expect(await (await fetch(`${app.url}/metrics`)).text()).toMatch(
      /^gift_budgets_lag_seconds Nan$/m,
    );
    await proxy.start();
    await becomesReady(200);
    await proxy.stop();
  });

  it('with PostgreSQL frozen: an answer in bounded time', async () => {
    const port = await freePort();
    const proxy: Proxy = createProxy(port, new URL(database.worker.url));
    await proxy.start();
    const url = database.worker.url.replace(/:\d+\//, `:${port}/`);
    app = await openApp(through(url), { backend: 'postgres', url: database.worker.url });
    proxy.freeze();
    const { problems } = await becomesReady(503);
    expect(problems!.database).toMatch(/timeout|no answer/);
    const startedAt = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 50 }, async () => (await fetch(app!.url)).status),
    );
    expect(new Set(answers)).toEqual(new Set([200]));
    expect(performance.now() - startedAt).toBeLessThan(6_000);
    await proxy.stop();
  });

  it.skipIf(inject('redisUrl') === null || !isOnPath('redis-server'))(
    'with Redis away: not ready, and says so; healthy; then ready again',
    async () => {
      const redis = createOwnRedis(await freePort());
      await redis.start();
      app = await openApp(database, redis.connection);
      await becomesReady(200);
      await redis.stop();
      const { problems } = await becomesReady(503);
      expect(problems).toMatchObject({
        database: null,
        migrations: null,
        queue: expect.stringMatching(/ECONNREFUSED|closed/),
      });
      expect(await probe('/healthz')).toEqual({ status: 200, healthy: true });
      await redis.start();
      await becomesReady(200);
      await app.stop();
      app = undefined;
      await redis.stop();
    },
  );
});

interface Probed {
  readonly ready?: boolean;
  readonly healthy?: boolean;
  readonly problems?: Record<string, string | null>;
}
