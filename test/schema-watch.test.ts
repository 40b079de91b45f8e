import { afterAll, beforeAll, expect, it } from 'vitest';
import { migrate } from '../src/database.ts';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { openApp, type TestApp } from './support/app.ts';
import { assign, countMarks, eventually, seedPairs, spent } from './support/budgets.ts';
import { within } from './support/outages.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

const later = 'Migration29991231000000_of_a_later_version';

describeBackends('while the schema is', (open) => {
  let database: TestDatabase;
  let queue: QueueConnection;
  let looking: OpenQueue;
  let pair: Pair;
  let app: TestApp;
  let events: GiftEventClient;

  beforeAll(async () => {
    database = await createTestDatabase();
    queue = await open(database);
    looking = openGiftEventsQueue(queue, () => {});
    await looking.connected();
    [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
    events = new GiftEventClient(queue);
    app = await openApp(database, queue);
  });
  afterAll(async () => {
    await app.stop();
    await Promise.all([looking.close(), events.close()]);
    await database.close();
  });

  const ready = async () => {
    const response = await fetch(`${app.url}/readyz`);
    return { status: response.status, body: await response.text() };
  };
  const becomesReady = async (status: number) =>
    await eventually(ready, (answer) => answer.status === status, 15_000);
  const becomes = async (total: string) =>
    await eventually(
      () => spent(database.pool, pair),
      (found) => found === total,
    );

  /** A change with a mark and an event, and none of both is served. */
  async function expectHeld(stored: string, amount: string): Promise<void> {
    await assign(database.upstream.pool, pair, amount);
    await events.giftAssigned([pair]);
    await eventually(
      async () => await looking.queue.getJobCounts('waiting', 'active'),
      ({ waiting, active }) => waiting! + active! === 1,
    );
    expect((await fetch(`${app.url}/healthz`)).status).toBe(200);
    expect(await countMarks(database.pool)).toBe(1);
    expect(await spent(database.pool, pair)).toBe(stored);
  }

  async function expectServed(total: string): Promise<void> {
    await becomesReady(200);
    await becomes(total);
    // The event and the mark were served at the same time: who found the row held left a mark.
    await eventually(
      async () => await countMarks(database.pool),
      (marks) => marks === 0,
    );
    const jobs = await eventually(
      async () => await looking.queue.getJobCounts('waiting', 'active', 'failed'),
      ({ waiting, active }) => waiting! + active! === 0,
    );
    expect(jobs.failed).toBe(0);
  }

  it('older, the work waits, says what to type, and goes on', async () => {
    await database.orm.migrator.down();
    const { body } = await becomesReady(503);
    expect(JSON.parse(body)).toMatchObject({
      ready: false,
      problems: { database: null, migrations: expect.stringMatching(/lacks 1 .*gift-budgets mig/) },
    });
    await expectHeld('0.00', '1.00');
    const page = await (await fetch(app.url)).text();
    expect(page).toContain('The schema does not fit: the database lacks 1 migration');
    expect(page).toContain('<code>gift-budgets migrate</code>');
    expect(app.log.filter((line) => line.includes('"the schema does not fit'))).toHaveLength(1);
    await migrate(database);
    await expectServed('1.00');
  });

  it('newer, the same, as in a rolling upgrade', async () => {
    await database.pool.query('insert into gift_budgets_migrations (name) values ($1)', [later]);
    const { body } = await becomesReady(503);
    expect(JSON.parse(body).problems.migrations).toContain(`${later} is not known here`);
    await expectHeld('1.00', '2.00');
    await database.pool.query('delete from gift_budgets_migrations where name = $1', [later]);
    await expectServed('3.00');
  });

  it('newer as another process begins, that one waits too, and stops when asked to', async () => {
    await database.pool.query('insert into gift_budgets_migrations (name) values ($1)', [later]);
    await becomesReady(503);
    const second = await openApp(database, queue);
    await events.giftAssigned([pair]);
    await within(8_000, second.stop());
    await database.pool.query('delete from gift_budgets_migrations where name = $1', [later]);
    await expectServed('3.00');
  });

  it('torn away under a statement, no job fails and nothing is lost', async () => {
    await database.pool.query('alter table recalculation_failures rename to away');
    await assign(database.upstream.pool, pair, '4.00');
    await events.giftAssigned([pair]);
    await eventually(
      async () => app.log.some((line) => line.includes('recalculation_failures')),
      (isTold) => isTold,
    );
    await database.pool.query('alter table away rename to recalculation_failures');
    await expectServed('7.00');
  });
});
