import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import type { Queryable } from '../../src/database.ts';
import type { Pair } from '../../src/events/contract.ts';
import { writeMarks } from '../../src/recalculation/write-marks.ts';
import { countMarks, eventually, markedPairs, spent, wrongTotals } from '../support/budgets.ts';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters, type Written } from './support/load.ts';
import type { Program } from '../support/run-program.ts';
import {
  type Backend,
  bareSender,
  describeQueues,
  openScene,
  type Scene,
  slowestTotal,
  startWorkerProcess,
} from './support/scene.ts';

const HELD_MS = 5_000;
const EDITS_MS = 10_000;
const REMOVED = 30;
const REMOVED_AT_ONCE = 5;
/** With a row held, another total is right after this long at the latest. */
const OTHERS_RIGHT_MS_MAX = 15_000;

describeQueues('a budget row that is held', (backend) => {
  it('by an idle session holds up no other pair, and is right once it is let go', async () => {
    await holdUpNobody(await openScene(backend), 'an idle session', async (holder, held) => {
      await holder.query('begin');
      await editNotes(holder, [held]);
      return async () => void (await holder.query('commit'));
    });
  }, 90_000);

  it('by a prepared transaction holds up no other pair, and is right once it ends', async () => {
    await holdUpNobody(await openScene(backend), 'a prepared one', async (holder, held) => {
      await holder.query('begin');
      await editNotes(holder, [held]);
      const name = `held_${process.pid}_${backend}`;
      await holder.query(`prepare transaction '${name}'`);
      // It outlives its session, and no end of a test may leave it.
      let ended: Promise<unknown> | undefined;
      const end = async () => void (await (ended ??= holder.query(`commit prepared '${name}'`)));
      onTestFinished(end);
      return end;
    });
  }, 90_000);

  it('by a writer of budgets and gifts that never commits holds up no other pair', async () => {
    await holdUpNobody(await openScene(backend), 'a writer', async (holder, held) => {
      await holder.query('begin');
      await holder.query(
        `insert into gift_persons (gift_id, person_id, occasion_id, amount)
         values ((select min(id) from gifts), $1, $2, 77.00)`,
        [held.personId, held.occasionId],
      );
      await holder.query(
        `update person_occasions set budget_amount = 50, budget_spent = 1
          where person_id = $1 and occasion_id = $2`,
        [held.personId, held.occasionId],
      );
      // As a client that vanishes: its transaction is rolled back.
      return async () => await holder.end();
    });
  }, 90_000);
});

describeQueues('sessions that lock budget rows in orders of their own', (backend) => {
  it('are never victims of a deadlock with a recalculation', async () => {
    const scene = await openScene(backend, { persons: 60, occasions: 4 });
    const { database, queue } = scene;
    const workers = [
      await startWorkerProcess(database, queue),
      await startWorkerProcess(database, queue),
    ];
    const deadlocksBefore = await countDeadlocks(database.pool);
    // Writers change all but the persons that are to be removed: those two would deadlock with
    // each other. What is removed is recalculated all along too, by marks and events for nothing.
    const removable = scene.pairs.slice(0, REMOVED * 4);
    const edited = scene.pairs.slice(REMOVED * 4);
    for (const pair of removable) await assignTo(database.pool, pair, '2.00');
    const send = bareSender(queue);
    const writers = startWriters(database, edited, { send });
    const until = performance.now() + EDITS_MS;
    const nudging = nudgeUntil(scene, send, until);

    // No two of these sessions share a row, and one row after the other is locked by each, upwards
    // by half of them and downwards by the others: a deadlock can only be one with a recalculation.
    const shares = [0, 1, 2, 3].map((n) => edited.filter((_, at) => at % 4 === n));
    const editing = shares.map(async (share, n) =>
      editUntil(database, n % 2 === 0 ? share : share.toReversed(), until),
    );
    const persons = [...new Set(removable.map(({ personId }) => personId))];
    const removing = [0, 1].map(async (n) => {
      const share = persons.filter((_, at) => at % 2 === n);
      await removeUntil(database, n === 0 ? share : share.toReversed(), until);
    });
    const [counts] = await Promise.all([Promise.all(editing), Promise.all(removing)]);
    const edits = counts.reduce((sum, count) => sum + count, 0);
    const nudges = await nudging;
    const written = await writers.stop();

    const deadlocks = (await countDeadlocks(database.pool)) - deadlocksBefore;
    const note =
      `${edits} edits of ${shares[0]!.length} rows each, ${persons.length} persons removed, ` +
      `all pairs recalculated ${nudges} times meanwhile; ${deadlocks} deadlocks`;
    await expectAtRest(database.pool, queue, { name: 'rows in opposite orders', written, note });
    expectNoDeadlocks(backend, deadlocks, workers);
  }, 120_000);
});

type Hold = (holder: pg.Client, held: Pair) => Promise<() => Promise<void>>;

/** Other pairs are changed all along while one is held, and each becomes right in bounded time. */
async function holdUpNobody(scene: Scene, name: string, hold: Hold): Promise<void> {
  const { database, queue } = scene;
  const [held, alone, ...others] = scene.pairs as [Pair, Pair, ...Pair[]];
  const worker = await startWorkerProcess(database, queue);
  const deadlocksBefore = await countDeadlocks(database.pool);
  const letGo = await hold(await connect(database), held);

  // The held pair is wrong from the start, and every batch with a mark or an event of it meets it.
  await assignTo(database.pool, held, '3.00');
  const send = bareSender(queue);
  const startedAt = performance.now();
  const writers = startWriters(database, others, {
    send: async (pairs) => await send([held, ...pairs]),
  });
  const slowestMs = await slowestTotal(database.pool, alone, 20);
  await sleep(Math.max(0, HELD_MS - (performance.now() - startedAt)));
  const written: Written = { ...(await writers.stop()) };
  const stoppedAt = performance.now();
  await eventually(
    () => markedPairs(database.pool),
    (marked) => marked.every((pair) => pair === `${held.personId}-${held.occasionId}`),
  );
  const othersMs = performance.now() - stoppedAt;
  const marksOfHeld = await countMarks(database.pool);
  expect(marksOfHeld, 'the held pair keeps a mark').toBeGreaterThan(0);
  expect(await spent(database.pool, held)).toBe('0.00');
  const wrong = await wrongTotals(database.pool);
  expect(wrong).toEqual([expect.stringContaining(`${held.personId}-${held.occasionId}:`)]);
  expect(slowestMs).toBeLessThan(OTHERS_RIGHT_MS_MAX);
  expect(othersMs).toBeLessThan(OTHERS_RIGHT_MS_MAX);

  await letGo();
  const deadlocks = (await countDeadlocks(database.pool)) - deadlocksBefore;
  const note =
    `others right within ${Math.round(slowestMs)} ms one by one and ${Math.round(othersMs)} ms ` +
    `after the load; the held pair had ${marksOfHeld} marks; ${deadlocks} deadlocks`;
  await expectAtRest(database.pool, queue, { name: `row held by ${name}`, written, note });
  expectNoDeadlocks(queue.backend, deadlocks, [worker]);
}

async function connect({ url }: { readonly url: string }): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'holder' });
  client.on('error', () => {});
  await client.connect();
  // Who looks for the deadlock first is its victim: this session, long before a recalculation that
  // waited would give up by its lock_timeout.
  await client.query(`set deadlock_timeout = '20ms'`);
  let ended: Promise<void> | undefined;
  const end = client.end.bind(client);
  client.end = async () => await (ended ??= end());
  onTestFinished(async () => await client.end());
  return client;
}

async function assignTo(db: Queryable, { personId, occasionId }: Pair, amount: string) {
  await db.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     values ((select min(id) from gifts), $1, $2, $3)`,
    [personId, occasionId, amount],
  );
}

/** Locks the rows one after the other, in the order that is given. */
async function editNotes(db: Queryable, pairs: readonly Pair[]): Promise<void> {
  for (const { personId, occasionId } of pairs) {
    await db.query(
      `update person_occasions set budget_notes = 'edited ' || clock_timestamp()
        where person_id = $1 and occasion_id = $2`,
      [personId, occasionId],
    );
  }
}

/**
 * Edits all the rows, again and again, each time in one transaction.
 *
 * @throws as soon as it is the victim of a deadlock.
 */
async function editUntil(
  database: { readonly url: string },
  pairs: readonly Pair[],
  until: number,
): Promise<number> {
  const client = await connect(database);
  let edits = 0;
  for (; performance.now() < until; edits += 1) {
    await client.query('begin');
    await editNotes(client, pairs);
    await client.query('commit');
  }
  return edits;
}

/**
 * Removes the persons, with all their budgets and gifts, some in one transaction, so that they are
 * through with all at the given moment.
 *
 * @throws as soon as it is the victim of a deadlock.
 */
async function removeUntil(
  database: { readonly url: string },
  persons: readonly string[],
  until: number,
): Promise<void> {
  const client = await connect(database);
  const pauseMs = (until - performance.now()) / persons.length;
  for (let from = 0; from < persons.length; from += REMOVED_AT_ONCE) {
    await client.query('begin');
    for (const id of persons.slice(from, from + REMOVED_AT_ONCE)) {
      await client.query('delete from persons where id = $1', [id]);
      await sleep(pauseMs);
    }
    await client.query('commit');
  }
}

/** Has every pair recalculated again and again, and returns how often. */
async function nudgeUntil(
  { database, pairs }: Scene,
  send: (pairs: readonly Pair[]) => Promise<unknown>,
  until: number,
): Promise<number> {
  let nudges = 0;
  for (; performance.now() < until; nudges += 1) {
    await writeMarks(database.pool, pairs);
    await send(pairs);
    await sleep(20);
  }
  return nudges;
}

/**
 * Sessions of the tests fail by themselves when they are victims; a recalculation says so and tries
 * again. PostgreSQL counts those of BullMQ's jobs among each other too, where the queue is in it.
 */
function expectNoDeadlocks(backend: Backend, counted: number, workers: readonly Program[]): void {
  if (backend === 'redis') expect(counted).toBe(0);
  const victims = workers
    .flatMap(({ err }) => err.split('\n'))
    .filter((line) => line.includes('40P01') && !line.includes('"queue error"'));
  expect(victims).toEqual([]);
}

async function countDeadlocks(db: Queryable): Promise<number> {
  // Sessions report what they counted when they are idle, once a second at most.
  await sleep(1_500);
  const { rows } = await db.query(
    `select deadlocks::int from pg_stat_database where datname = current_database()`,
  );
  return rows[0]!.deadlocks as number;
}
