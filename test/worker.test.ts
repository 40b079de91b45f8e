import type { Job, Queue } from 'bullmq';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Pair } from '../src/events/contract.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import type { Observer } from '../src/recalculation/observer.ts';
import { startWorker, type RecalculationWorker } from '../src/recalculation/worker.ts';
import {
  assign,
  countMarks,
  eventually,
  markedPairs,
  seedPairs,
  spent,
} from './support/budgets.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

describeBackends('a gift event', (open) => {
  let database: TestDatabase;
  let connection: QueueConnection;
  let looking: OpenQueue;
  let queue: Queue;
  let pairs: Pair[];
  let worker: RecalculationWorker;
  let retries: unknown[];

  beforeAll(async () => {
    database = await createTestDatabase();
    connection = await open(database);
    looking = openGiftEventsQueue(connection, () => {});
    await looking.connected();
    queue = looking.queue;
    pairs = await seedPairs(database.pool, 3, 2);
  });
  afterAll(async () => {
    await looking.close();
    await database.close();
  });
  beforeEach(async () => {
    await database.pool.query('delete from gift_persons');
    await database.pool.query('update person_occasions set budget_spent = 0');
    await database.pool.query('truncate pending_recalculations, recalculation_failures');
    retries = [];
    const observer: Observer = { retry: (_cause, error) => retries.push(error) };
    const sizes = { concurrency: 10, pairsMax: 500, drainTimeoutMs: 5_000 };
    worker = await startWorker({
      pool: database.worker.pool,
      queue: connection,
      ...sizes,
      observer,
    });
  });
  afterEach(async () => {
    await worker.stop();
  });

  const affecting = (...affected: Pair[]): unknown => ({ version: 1, affected });
  const add = async (name: string, data: unknown): Promise<Job> => await queue.add(name, data);
  const finished = async ({ id }: Job): Promise<Job> =>
    (await eventually(
      async () => await queue.getJob(id!),
      (job) => job?.finishedOn !== undefined,
    ))!;

  it('without any option of its producer makes the total right, and says what it was', async () => {
    await assign(database.upstream.pool, pairs[0]!, '12.50');
    const { returnvalue } = await finished(await add('gift.assigned', affecting(pairs[0]!)));
    expect(returnvalue).toEqual({ outcome: 'changed', before: '0.00', after: '12.50' });
    expect(await spent(database.pool, pairs[0]!)).toBe('12.50');
    expect(await countMarks(database.pool)).toBe(0);
  });

  it('tells changed, unchanged, busy and missing pairs apart; busy ones keep a mark', async () => {
    const [changed, unchanged, busy] = pairs as [Pair, Pair, Pair];
    const missing = { personId: '987654321', occasionId: '1' };
    await assign(database.upstream.pool, changed, '3.00');
    await database.pool.query('truncate pending_recalculations');
    const holder = await database.pool.connect();
    try {
      await holder.query('begin');
      await holder.query(
        'select from person_occasions where person_id = $1 and occasion_id = $2 for update',
        [busy.personId, busy.occasionId],
      );
      const event = affecting(changed, unchanged, busy, missing);
      const { returnvalue } = await finished(await add('gift.moved', event));
      expect(returnvalue).toEqual({
        changed: 1,
        unchanged: 1,
        busy: 1,
        missing: 1,
        pairs: [
          { ...changed, outcome: 'changed', before: '0.00', after: '3.00' },
          { ...unchanged, outcome: 'unchanged', before: '0.00', after: '0.00' },
          { ...busy, outcome: 'busy' },
          { ...missing, outcome: 'missing' },
        ],
      });
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    expect(await markedPairs(database.pool)).toEqual([`${busy.personId}-${busy.occasionId}`]);
  });

  it('of one pair returns so little that Redis keeps the job in its short form', async () => {
    const [total, shortForm] = ['999999.99', 64];
    await assign(database.upstream.pool, pairs[0]!, total);
    await finished(await add('gift.assigned', affecting(pairs[0]!)));
    const { returnvalue } = await finished(await add('gift.assigned', affecting(pairs[0]!)));
    expect(returnvalue).toEqual({ outcome: 'unchanged', before: total, after: total });
    expect(JSON.stringify(returnvalue).length).toBeLessThanOrEqual(shortForm);
  });

  it('of 500 pairs returns all counts but shows ten pairs', async () => {
    const affected = Array.from({ length: 500 }, (_, n) => ({ personId: 1e6 + n, occasionId: 1 }));
    const { returnvalue } = await finished(await add('gift.assigned', { version: 1, affected }));
    expect(returnvalue).toMatchObject({ missing: 500 });
    expect((returnvalue as { pairs: unknown[] }).pairs).toHaveLength(10);
  });

  it('with a giftId alone recalculates the pairs to which that gift is assigned now', async () => {
    await assign(database.upstream.pool, pairs[0]!, '1.00');
    await assign(database.upstream.pool, pairs[3]!, '2.00');
    await assign(database.upstream.pool, null, '4.00', pairs[0]!.personId);
    const { rows } = await database.pool.query('select distinct gift_id from gift_persons');
    const event = { version: 1, giftId: rows[0].gift_id };
    const { returnvalue } = await finished(await add('gift.repriced', event));
    expect(returnvalue).toMatchObject({ changed: 2 });
    expect(await spent(database.pool, pairs[0]!)).toBe('1.00');
    expect(await spent(database.pool, pairs[3]!)).toBe('2.00');
  });

  it('whose pair cannot be stored fails for good and says why; its other pairs are stored', async () => {
    await assign(database.upstream.pool, pairs[0]!, '99999999.99');
    await assign(database.upstream.pool, pairs[0]!, '0.01');
    await assign(database.upstream.pool, pairs[1]!, '5.00');
    const job = await finished(await add('gift.assigned', affecting(pairs[0]!, pairs[1]!)));
    expect(await job.getState()).toBe('failed');
    expect(job.attemptsMade).toBe(1);
    expect(job.failedReason).toBe(
      `budget_spent not stored for person ${pairs[0]!.personId}, occasion ${pairs[0]!.occasionId}: ` +
        'the sum 100000000.00 does not fit budget_spent, a numeric(10,2)',
    );
    expect(await spent(database.pool, pairs[1]!)).toBe('5.00');
  });

  const malformed: readonly (readonly [name: string, data: unknown, reason: string])[] = [
    ['gift.bought', {}, 'budget.recalculate, got "gift.bought"'],
    ['gift.assigned', { version: 2, affected: [] }, 'data.version: expected 1, got 2'],
    ['gift.moved', { version: 1, giftId: 7 }, 'data.affected: expected a list of 1 to 500 pairs'],
    [
      'gift.assigned',
      { version: 1, affected: [{ personId: 'Mom', occasionId: 1 }] },
      'data.affected[0].personId: expected an id: a whole number from 1 to 9223372036854775807',
    ],
    ['gift.assigned', null, 'data'], // null for Redis, {} for PostgreSQL
    ['gift.assigned', 'text', 'data: expected'],
  ];
  it.each(malformed)('%s with %j fails at once and for good', async (name, data, reason) => {
    const options = { attempts: 5, backoff: { type: 'fixed', delay: 60_000 } };
    const job = await finished(await queue.add(name, data, options));
    expect(await job.getState()).toBe('failed');
    expect(job.attemptsMade).toBe(1);
    expect(job.failedReason).toContain(reason);
  });

  it('that is done is kept for people to look at, but not for ever', async () => {
    const kept = async (): Promise<number> => await queue.getJobCountByTypes('completed');
    if (connection.backend === 'postgres') {
      await finished(await add('gift.assigned', affecting(pairs[0]!)));
      expect(await kept()).toBeGreaterThan(0);
      await database.pool.query(`update bullmq.job set finished_at_ms = finished_at_ms - 61000`);
      await finished(await add('gift.assigned', affecting(pairs[0]!)));
      expect(await kept()).toBe(1);
      return;
    }
    const jobs = Array.from({ length: 1_200 }, () => ({
      name: 'gift.assigned',
      data: affecting(pairs[0]!),
    }));
    await queue.addBulk(jobs);
    await eventually(
      async () => await queue.getJobCounts('waiting', 'active', 'completed'),
      ({ waiting, active }) => waiting === 0 && active === 0,
    );
    expect(await kept()).toBe(1_000);
  });

  describe('while PostgreSQL is at fault, is not failed but served later', () => {
    it('serialization failures', async () => {
      await assign(database.upstream.pool, pairs[0]!, '7.00');
      await database.pool.query(`
        create sequence faults;
        grant usage on sequence faults to public;
        create function fault() returns trigger language plpgsql as $$
        begin
          if nextval('faults') <= 3 then
            raise exception 'could not serialize access' using errcode = '40001';
          end if;
          return new;
        end $$;
        create trigger fault before update on person_occasions
          for each row execute function fault()`);
      try {
        const job = await finished(await add('gift.assigned', affecting(pairs[0]!)));
        expect(await job.getState()).toBe('completed');
        expect(retries).toHaveLength(3);
      } finally {
        await database.pool.query('drop function fault() cascade; drop sequence faults');
      }
      expect(await spent(database.pool, pairs[0]!)).toBe('7.00');
    });

    it('connections that are cut while it runs', async () => {
      await assign(database.upstream.pool, pairs[1]!, '8.00');
      const migration = await database.pool.connect();
      try {
        await migration.query('begin; lock table person_occasions in access exclusive mode');
        const job = await add('gift.assigned', affecting(pairs[1]!));
        await eventually(
          async () => await cutWaitingConnections(),
          (cut) => cut > 0,
        );
        await eventually(
          async () => retries.length,
          (count) => count > 0,
        );
        await migration.query('rollback');
        expect(await (await finished(job)).getState()).toBe('completed');
      } finally {
        migration.release();
      }
      expect(await spent(database.pool, pairs[1]!)).toBe('8.00');
    });

    async function cutWaitingConnections(): Promise<number> {
      const { rows } = await database.pool.query(
        `select count(pg_terminate_backend(pid))::int as cut from pg_stat_activity
          where wait_event_type = 'Lock' and datname = current_database()`,
      );
      return rows[0].cut as number;
    }
  });
});
