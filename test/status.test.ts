import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { statusCommand } from '../src/commands/status.ts';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import type { QueueConnection } from '../src/queue.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { beginSweep, lastSweeps } from '../src/recalculation/sweep-record.ts';
import { sweepChunk } from '../src/recalculation/sweep.ts';
import { assign, seedPairs } from './support/budgets.ts';
import { createOwnRedis, freePort, isOnPath, within } from './support/outages.ts';
import { runCommand } from './support/run-command.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let pairs: Pair[];

beforeAll(async () => {
  database = await createTestDatabase();
});

beforeEach(async () => {
  await database.pool.query(
    `truncate persons, occasions, gifts restart identity cascade;
     truncate recalculation_failures;
     truncate budget_sweeps cascade`,
  );
  pairs = await seedPairs(database.pool, 10, 1);
});

afterAll(async () => {
  await database.close();
});

/** With the queue of the backend under test, or one in PostgreSQL that was never made. */
const status = (queue: QueueConnection, ...args: string[]) =>
  runCommand(statusCommand, { ...database, queue }, ['status', ...args]);

describeBackends('status', (open) => {
  let queue: QueueConnection;
  const where = () => (queue.backend === 'redis' ? 'in Redis' : 'in PostgreSQL');

  beforeAll(async () => {
    queue = await open(database);
  });

  test('nothing to tell', async () => {
    expect(await status(queue)).toEqual({
      out:
        'lag       0 s, nothing is pending\n' +
        'failures  none\n' +
        `queue     ${where()}: no jobs\n` +
        'sweeps    none\n',
      err: '',
      exitCode: 0,
    });
  });

  test('the lag, and a hint where it is long', async () => {
    await assign(database.upstream.pool, pairs[0]!, '1.00');
    expect((await status(queue)).out).toMatch(/^lag {7}0\.\d s, 1 pair pending\nfailures/);
    await database.pool.query(
      `update pending_recalculations set marked_at = clock_timestamp() - interval '61.5 s'`,
    );
    expect(await status(queue)).toMatchObject({
      exitCode: 0,
      out: expect.stringMatching(
        /^lag {7}61\.\d s, 1 pair pending\n {10}if this grows, is a worker running\? "gift-budgets start" runs one\n/,
      ),
    });
    await database.pool.query(
      `insert into pending_recalculations (person_id, occasion_id)
       select i, 1 from generate_series(1, 10001) i`,
    );
    expect((await status(queue)).out).toContain('s, at least 10000 pairs pending\n');
  });

  test('failures: how many, and the first of them', async () => {
    for (const pair of pairs.slice(0, 7)) {
      await assign(database.upstream.pool, pair, '99999999.99');
      await assign(database.upstream.pool, pair, '0.01');
    }
    await catchUpOnce({
      pool: database.worker.pool,
      pairsMax: 500,
      pollMinMs: 1,
      pollMaxMs: 1,
      graceMs: () => 0,
    });
    const { out, exitCode } = await status(queue);
    const line = (person: number) =>
      `          person (person ${person}), occasion (occasion 1): ` +
      'the sum 100000000.00 does not fit budget_spent, a numeric(10,2)\n';
    expect(out).toContain(
      `failures  7\n${[1, 2, 3, 4, 5].map(line).join('')}` +
        '          … and 2 more: "gift-budgets failures"\n',
    );
    expect(exitCode).toBe(0);
  });

  test('the jobs of the queue by state', async () => {
    const events = new GiftEventClient(queue);
    await events.giftAssigned(pairs.slice(0, 1));
    await events.giftAssigned(pairs.slice(1, 2));
    await events.close();
    expect((await status(queue)).out).toContain(`queue     ${where()}: 2 waiting\n`);
    const { out } = await status(queue, '--format', 'json');
    expect(JSON.parse(out).queue).toMatchObject({
      backend: queue.backend,
      jobs: { waiting: 2, active: 0, failed: 0, completed: 0, delayed: 0 },
    });
  });

  test('the last sweeps, the newest first', async () => {
    await database.pool.query('update person_occasions set budget_spent = 3 where person_id = 2');
    await database.pool.query('delete from pending_recalculations');
    for (const mode of ['report', 'repair'] as const) {
      await beginSweep(database.worker.pool, mode, 0);
      const [sweep] = await lastSweeps(database.worker.pool, 1);
      while (await sweepChunk(database.worker.pool, sweep!.id, 500));
    }
    await beginSweep(database.worker.pool, 'repair', 0);
    const { out } = await status(queue);
    const when = String.raw`20\d\d-\S+Z`;
    expect(out).toMatch(
      new RegExp(
        `\\nsweeps    ${when}, unfinished: 0 checked, 0 drifted, 0 repaired\\n` +
          `          ${when}, finished: 10 checked, 1 drifted, 1 repaired\\n` +
          `          ${when}, finished: 10 checked, 1 drifted \\(report only\\)\\n$`,
      ),
    );
  });

  test('as JSON', async () => {
    const { out } = await status(queue, '--format', 'json');
    expect(JSON.parse(out)).toMatchObject({
      lag: { seconds: 0, pendingPairs: 0, isAtLeast: false },
      failures: 0,
      firstFailures: [],
      queue: { backend: queue.backend },
      sweeps: [],
    });
  });
});

describe('a queue that is not reachable hides nothing else', () => {
  const expectRest = (out: string) => {
    expect(out).toMatch(/^lag {7}0\.\d s, 1 pair pending\nfailures {2}none\nqueue /);
    expect(out).toMatch(/\nsweeps {4}none\n$/);
  };

  beforeEach(async () => {
    await assign(database.upstream.pool, pairs[0]!, '1.00');
  });

  test('Redis is away', async () => {
    const url = `redis://127.0.0.1:${await freePort()}`;
    const { out, exitCode } = await within(5_000, status({ backend: 'redis', url }));
    expectRest(out);
    expect(out).toMatch(/\nqueue {5}in Redis, not reachable \(.*ECONNREFUSED.*\)\n/);
    expect(exitCode).toBe(0);
    const json = JSON.parse((await status({ backend: 'redis', url }, '--format', 'json')).out);
    expect(json.queue).toEqual({
      backend: 'redis',
      unreachable: expect.stringContaining('ECONNREFUSED'),
    });
  });

  test.skipIf(!isOnPath('redis-server'))('Redis does not answer', async () => {
    const redis = createOwnRedis(await freePort());
    await redis.start();
    try {
      redis.freeze();
      const { out, exitCode } = await within(20_000, status(redis.connection));
      expectRest(out);
      expect(out).toContain('\nqueue     in Redis, not reachable (');
      expect(exitCode).toBe(0);
    } finally {
      await redis.stop();
    }
  });

  test('the database lacks the tables of the queue', async () => {
    const { out } = await status({
      backend: 'postgres',
      url: database.worker.url,
      schema: 'nowhere',
    });
    expectRest(out);
    expect(out).toContain(
      'queue     in PostgreSQL, not reachable (the database lacks the tables of the queue: ',
    );
  });
});
