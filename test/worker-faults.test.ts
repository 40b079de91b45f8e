import type { Job } from 'bullmq';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import type { Pair } from '../src/events/contract.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { startWorker, type RecalculationWorker } from '../src/recalculation/worker.ts';
import { assign, eventually, seedPairs, spent } from './support/budgets.ts';
import { createOwnRedis, createProxy, freePort, within } from './support/outages.ts';
import { startProgram } from './support/run-program.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

const JOBS = 20;

let database: TestDatabase;
let pair: Pair;
const stops: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
  await assign(database.upstream.pool, pair, '5.00');
});
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop();
});
afterAll(async () => {
  await database.close();
});

describeBackends('jobs of a worker', (open) => {
  it('that stops before they are through are given back, and the next worker starts at once', async () => {
    const connection = await open(database);
    const looking = await look(connection);
    const migration = await lockBudgets();
    const worker = await start(connection, 200);
    const jobs = await addJobs(looking);
    await untilActive(looking);
    await within(15_000, worker.stop());
    expect(await looking.queue.getJobCountByTypes('active')).toBe(0);
    expect(await looking.queue.getJobCountByTypes('waiting')).toBe(JOBS);
    await migration.release();
    await start(connection);
    // Had their locks been left, they would be taken up only after some 5 s.
    await within(4_000, untilCompleted(looking, jobs));
    expect(await attemptsOf(looking, jobs)).toEqual(jobs.map(() => 1));
  });

  it('that is killed are taken up by another within 10 s', async () => {
    const connection = await ownQueue(await open(database));
    const looking = await look(connection);
    const migration = await lockBudgets();
    const killed = startProgram(['start'], {
      DATABASE_URL: database.worker.url,
      GIFT_BUDGETS_DASHBOARD_PORT: '0',
      ...(connection.backend === 'redis' && { REDIS_URL: connection.url }),
    });
    stops.push(async () => killed.kill('SIGKILL'));
    await killed.said(/started/);
    const jobs = await addJobs(looking);
    await untilActive(looking);
    killed.kill('SIGKILL');
    await killed.ended();
    await migration.release();
    await start(connection);
    await within(10_000, untilCompleted(looking, jobs));
  }, 90_000);

  it('whose stop waits for what runs are finished, not given back', async () => {
    const connection = await open(database);
    const looking = await look(connection);
    const migration = await lockBudgets();
    const worker = await start(connection, 30_000);
    const jobs = await addJobs(looking);
    await untilActive(looking);
    const stopped = worker.stop();
    await migration.release();
    await within(15_000, stopped);
    await untilCompleted(looking, jobs);
  });
});

describe.skipIf(inject('redisUrl') === null)('a worker on Redis', () => {
  it('goes on after an outage of 8 s', async () => {
    const redis = createOwnRedis(await freePort());
    await redis.start();
    stops.push(async () => await redis.stop());
    await start(redis.connection);
    await serveOne(redis.connection);
    await redis.stop();
    const back = new Promise((resolve) => void setTimeout(resolve, 8_000));
    await back;
    await redis.start();
    await within(10_000, serveOne(redis.connection));
  }, 60_000);

  it('starts without its Redis, and serves as soon as it is there', async () => {
    const redis = createOwnRedis(await freePort());
    stops.push(async () => await redis.stop());
    await start(redis.connection);
    await redis.start();
    await within(10_000, serveOne(redis.connection));
  });

  it('goes on after a FLUSHALL', async () => {
    const redis = createOwnRedis(await freePort());
    await redis.start();
    stops.push(async () => await redis.stop());
    await start(redis.connection);
    await serveOne(redis.connection);
    await redis.run('flushall');
    await within(10_000, serveOne(redis.connection));
  });

  it('stops in time while its Redis is away', async () => {
    const redis = createOwnRedis(await freePort());
    await redis.start();
    const worker = await start(redis.connection);
    await serveOne(redis.connection);
    await redis.stop();
    await within(15_000, worker.stop());
  });
});

describe('a worker whose queue is in PostgreSQL', () => {
  it('is not started while it is away, outlives its restarts, and stops while it is away', async () => {
    const port = await freePort();
    const proxy = createProxy(port, new URL(database.worker.url));
    stops.push(async () => await proxy.stop());
    const url = new URL(database.worker.url);
    url.host = `127.0.0.1:${port}`;
    const direct = await prepared();
    const through: QueueConnection = { ...direct, url: url.href };
    await expect(within(20_000, start(through))).rejects.toThrow('ECONNREFUSED');
    await proxy.start();
    const worker = await start(through);
    for (let restart = 0; restart < 2; restart += 1) {
      await within(20_000, serveOne(direct));
      await proxy.stop();
      await proxy.start();
    }
    await within(20_000, serveOne(direct));
    await proxy.stop();
    await within(20_000, worker.stop());
  }, 90_000);
});

/** A program of its own knows no prefix, so on Redis it gets a server of its own. */
async function ownQueue(connection: QueueConnection): Promise<QueueConnection> {
  if (connection.backend === 'postgres') return connection;
  const redis = createOwnRedis(await freePort());
  await redis.start();
  stops.push(async () => await redis.stop());
  return redis.connection;
}

async function prepared(): Promise<QueueConnection & { backend: 'postgres' }> {
  const connection = { backend: 'postgres', url: database.worker.url } as const;
  return connection;
}

async function start(
  connection: QueueConnection,
  drainTimeoutMs = 5_000,
): Promise<RecalculationWorker> {
  const sizes = { concurrency: 50, pairsMax: 500, drainTimeoutMs };
  const worker = await startWorker({ pool: database.worker.pool, queue: connection, ...sizes });
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => await (stopped ??= worker.stop());
  stops.push(async () => await within(30_000, stop()));
  return { ...worker, stop };
}

async function look(connection: QueueConnection): Promise<OpenQueue> {
  const looking = openGiftEventsQueue(connection, () => {});
  await looking.connected();
  stops.push(async () => await looking.close());
  return looking;
}

const event = () => ({ version: 1, affected: [pair] });

async function addJobs({ queue }: OpenQueue): Promise<Job[]> {
  const jobs = Array.from({ length: JOBS }, () => ({ name: 'gift.assigned', data: event() }));
  return await queue.addBulk(jobs);
}

/** A change and its event, until the total is right. */
async function serveOne(connection: QueueConnection): Promise<void> {
  const looking = openGiftEventsQueue(connection, () => {});
  try {
    await looking.connected();
    await assign(database.upstream.pool, pair, '1.00');
    const { rows } = await database.pool.query('select sum(amount) as total from gift_persons');
    await looking.queue.add('gift.assigned', event());
    await eventually(
      async () => await spent(database.pool, pair),
      (stored) => stored === rows[0].total,
    );
  } finally {
    await looking.close();
  }
}

async function untilActive({ queue }: OpenQueue): Promise<void> {
  await eventually(
    async () => await queue.getJobCountByTypes('active'),
    (active) => active === JOBS,
  );
}

async function untilCompleted({ queue }: OpenQueue, jobs: readonly Job[]): Promise<void> {
  await eventually(
    async () => await Promise.all(jobs.map(async ({ id }) => await queue.getJobState(id!))),
    (states) => states.every((state) => state === 'completed'),
  );
}

async function attemptsOf({ queue }: OpenQueue, jobs: readonly Job[]): Promise<number[]> {
  const done = await Promise.all(jobs.map(async ({ id }) => await queue.getJob(id!)));
  return done.map((job) => job!.attemptsMade);
}

/** Keeps every recalculation from going on, as a migration of the table does. */
async function lockBudgets(): Promise<{ release(): Promise<void> }> {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query('begin; lock table person_occasions in access exclusive mode');
  let released: Promise<void> | undefined;
  const release = async (): Promise<void> => await (released ??= client.end());
  stops.push(release);
  return { release };
}
