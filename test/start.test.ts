import { createServer, type Server } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import { openGiftEventsQueue, type QueueConnection } from '../src/queue.ts';
import { assign, countMarks, eventually, seedPairs, spent } from './support/budgets.ts';
import { type Program, runProgram, startProgram } from './support/run-program.ts';
import {
  createEmptyDatabase,
  createTestDatabase,
  describeBackends,
  type TestDatabase,
} from './support/servers.ts';

describeBackends('start', (open) => {
  let database: TestDatabase;
  let queue: QueueConnection;
  let pair: Pair;
  let program: Program;

  beforeAll(async () => {
    database = await createTestDatabase();
    queue = await open(database);
    // A process has no setting for the prefix: in a database of its own, Redis has no other queue.
    if (queue.backend === 'redis') queue = { backend: 'redis', url: `${queue.url}/7` };
    [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
    program = startProgram(['start'], settings());
    await program.said(/started/);
  });

  afterAll(async () => {
    program.kill('SIGKILL');
    await database.close();
  });

  const settings = () => ({
    DATABASE_URL: database.worker.url,
    GIFT_BUDGETS_DASHBOARD_PORT: '0',
    ...(queue.backend === 'redis' && { REDIS_URL: queue.url }),
  });

  const becomes = async (total: string) =>
    await eventually(
      () => spent(database.pool, pair),
      (found) => found === total,
    );

  test('serves a mark', async () => {
    await assign(database.upstream.pool, pair, '12.50');
    await becomes('12.50');
  });

  test('serves an event', async () => {
    await database.pool.query('alter table person_occasions disable trigger user');
    await database.pool.query('update person_occasions set budget_spent = 1');
    await database.pool.query('alter table person_occasions enable trigger user');
    const client = new GiftEventClient(queue);
    await client.recalculateBudgets([pair]);
    await client.close();
    await becomes('12.50');
  });

  test('shows the queue on its page', async () => {
    const [, url] = await program.said(/"pages":"(http:\/\/[\d.:]+)"/);
    const page = `${url}/queues`;
    const response = await fetch(page);
    expect(response.status).toBe(200);
    expect(await response.text()).toContain('gift-budgets');
    const listed = await fetch(`${page}/api/queues`);
    expect(await listed.json()).toMatchObject({ queues: [{ name: 'gift-events' }] });
  });

  test('logs JSON lines where nobody looks on', () => {
    const lines = program.err.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as { name: string })).toMatchObject(
      lines.map(() => ({ name: 'gift-budgets' })),
    );
    expect(program.out).toBe('');
  });

  test('on SIGTERM ends with 0, with no job locked, no mark and no connection left', async () => {
    const client = new GiftEventClient(queue);
    await client.recalculateBudgets([pair]);
    await Promise.all(
      Array.from({ length: 50 }, async () => await client.recalculateBudgets([pair])),
    );
    await client.close();
    program.kill('SIGTERM');
    expect(await program.ended()).toMatchObject({ code: 0, signal: null });
    expect(program.err).toContain('stopped');
    const looking = openGiftEventsQueue(queue, () => {});
    await looking.connected();
    expect(await looking.queue.getActiveCount()).toBe(0);
    await looking.close();
    expect(await countMarks(database.pool)).toBe(0);
    await eventually(workerConnections, (found) => found === 0);
  });

  async function workerConnections(): Promise<number> {
    const { rows } = await database.pool.query(
      `select from pg_stat_activity
        where datname = current_database() and application_name = 'gift-budgets worker'`,
    );
    return rows.length;
  }
});

describe('start ends at once', () => {
  let database: TestDatabase;
  let pair: Pair;
  let env: NodeJS.ProcessEnv;

  beforeAll(async () => {
    database = await createTestDatabase();
    [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
    env = { DATABASE_URL: database.worker.url, GIFT_BUDGETS_DASHBOARD_PORT: '0' };
  });
  afterAll(async () => {
    await database.close();
  });

  const connection = (): QueueConnection => ({ backend: 'postgres', url: database.worker.url });

  test('on a second signal, and nothing is lost', async () => {
    const program = startProgram(['start'], env);
    await program.said(/started/);
    const locker = await database.pool.connect();
    try {
      // Nothing can be recalculated, so the job that is under way would hold up the end for long.
      await locker.query('begin; lock table person_occasions in access exclusive mode');
      await database.pool.query(
        'insert into pending_recalculations (person_id, occasion_id) values ($1, $2)',
        [pair.personId, pair.occasionId],
      );
      const client = new GiftEventClient(connection());
      await client.giftAssigned([pair]);
      await client.close();
      await program.said(/"cause":"event".*trying again/);
      program.kill('SIGTERM');
      await program.said(/stopping/);
      const firstAt = performance.now();
      // Signals that are closer together than half a second are one.
      while (performance.now() - firstAt < 600) await new Promise(setImmediate);
      program.kill('SIGTERM');
      expect(await program.ended()).toMatchObject({ code: 143 });
      expect(performance.now() - firstAt).toBeLessThan(3_000);
      expect(program.err).toContain('stopped at once');
    } finally {
      program.kill('SIGKILL');
      await locker.query('rollback');
      locker.release();
    }
    const looking = openGiftEventsQueue(connection(), () => {});
    await looking.connected();
    const { active, waiting } = await looking.queue.getJobCounts('active', 'waiting');
    await looking.close();
    expect({ jobs: active! + waiting!, marks: await countMarks(database.pool) }).toEqual({
      jobs: 1,
      marks: 1,
    });
  });

  test('on an error that nobody caught, which it logs, with another exit code', async () => {
    const unforeseen = `process.on('SIGUSR2', () => void Promise.reject(Error('unforeseen')))`;
    const program = startProgram(['start'], {
      ...env,
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(unforeseen)}`,
    });
    await program.said(/started/);
    program.kill('SIGUSR2');
    const { code, err } = await program.ended();
    expect(code).toBe(1);
    const last = JSON.parse(err.trim().split('\n').at(-1)!) as Record<string, unknown>;
    expect(last).toMatchObject({ level: 60, msg: 'uncaught error' });
    expect(last.err).toMatchObject({ message: 'unforeseen' });
  });
});

describe('what start refuses', () => {
  let migrated: TestDatabase;
  let empty: TestDatabase;
  let silent: Server;

  beforeAll(async () => {
    [migrated, empty] = await Promise.all([createTestDatabase(), createEmptyDatabase()]);
    silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
  });

  afterAll(async () => {
    silent.close();
    await Promise.all([migrated.close(), empty.close()]);
  });

  const silentPort = () => (silent.address() as { port: number }).port;

  test('a database that is not migrated, saying what to type', async () => {
    for (const command of ['start', 'show', 'verify']) {
      const { code, out, err } = await runProgram([command], { DATABASE_URL: empty.url });
      expect({ code, out }).toEqual({ code: 1, out: '' });
      expect(err).toMatch(/^error: .*not migrated.*run "gift-budgets migrate"\n$/);
    }
  });

  test('a database without the tables of the queue, and what it says to type helps', async () => {
    await migrated.pool.query('drop schema bullmq cascade');
    const env = { DATABASE_URL: migrated.url, GIFT_BUDGETS_DASHBOARD_PORT: '0' };
    const { code, err } = await runProgram(['start'], env);
    expect(code).toBe(1);
    expect(err).toMatch(
      /^error: the database lacks the tables of the queue: run "gift-budgets mig/,
    );
    expect(await runProgram(['migrate'], env)).toMatchObject({ code: 0, err: '' });
    const program = startProgram(['start'], env);
    await program.said(/started/);
    program.kill('SIGINT');
    expect(await program.ended()).toMatchObject({ code: 0 });
  });

  test('a port that is in use, saying how to choose another', async () => {
    const { code, err } = await runProgram(['start'], {
      DATABASE_URL: migrated.url,
      REDIS_URL: 'redis://127.0.0.1:1',
      GIFT_BUDGETS_DASHBOARD_PORT: String(silentPort()),
      GIFT_BUDGETS_LOG_LEVEL: 'silent',
    });
    expect(code).toBe(1);
    expect(err).toMatch(/^error: the pages cannot be served: .*address already in use/);
    expect(err).toContain('choose another GIFT_BUDGETS_DASHBOARD_PORT');
  });

  test.concurrent.each([
    ['where nothing listens', () => 'u:s3cret@127.0.0.1:1/budgets', 'nothing listens there'],
    ['that never answers', () => `u:s3cret@127.0.0.1:${silentPort()}/budgets`, 'timeout expired'],
    ['with a wrong password', () => rest(migrated.url).replace(/:[^:@]+@/, ':s3cret@'), 'password'],
    ['that does not exist', () => rest(migrated.url).replace(/\w+$/, 'nowhere'), 'does not exist'],
  ])('a database %s, in bounded time and without the password', async (_, where, reason) => {
    const { code, out, err } = await runProgram(['start'], {
      DATABASE_URL: `postgres://${where()}`,
    });
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(
      /^error: cannot connect to the database "\w+" at 127.0.0.1:\d+ \(DATABASE_/,
    );
    expect(err).toContain(reason);
    expect(err).not.toContain('s3cret');
  });

  const rest = (url: string) => url.slice('postgres://'.length);
});

test('with Redis away it works from the marks, and stops when asked to', async () => {
  const database = await createTestDatabase();
  const [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
  const program = startProgram(['start'], {
    DATABASE_URL: database.worker.url,
    REDIS_URL: 'redis://127.0.0.1:1',
    GIFT_BUDGETS_DASHBOARD_PORT: '0',
  });
  try {
    await program.said(/started/);
    await assign(database.upstream.pool, pair, '3.00');
    await eventually(
      () => spent(database.pool, pair),
      (found) => found === '3.00',
    );
    program.kill('SIGTERM');
    expect(await program.ended()).toMatchObject({ code: 0 });
  } finally {
    program.kill('SIGKILL');
    await database.close();
  }
});
