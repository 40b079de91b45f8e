import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { GiftEventClient } from '../../src/events/client.ts';
import type { Pair } from '../../src/events/contract.ts';
import { startCatchUp } from '../../src/recalculation/catch-up.ts';
import { startWorker } from '../../src/recalculation/worker.ts';
import { openGiftEventsQueue } from '../../src/queue.ts';
import { assign, countMarks, createBudget, eventually, wrongTotals } from '../support/budgets.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from '../support/servers.ts';

const HISTORIES = 150;
const HISTORIES_AT_ONCE = 15;
const seed = Number(process.env.PROPERTY_SEED ?? Date.now() % 1_000_000_000);

const place = fc.nat({ max: 3 });
const amount = fc.option(fc.integer({ min: -5_000, max: 20_000 }), { nil: null });
const sending = fc.constantFrom('once', 'twice', 'before', 'late', 'never');
const step = fc.record({
  what: fc.constantFrom(
    'assign',
    'assign',
    'reprice',
    'move',
    'unassign',
    'dropBudget',
    'foreignSave',
    'rollBack',
  ),
  at: place,
  to: place,
  amount,
  sending,
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

describeBackends(`random histories (PROPERTY_SEED=${seed})`, (open) => {
  describe('through two workers and two catch-ups', () => {
    it(`${HISTORIES} end with every total equal to the decimal.js sum`, async () => {
      const database = await createTestDatabase();
      const queue = await open(database);
      const client = new GiftEventClient(queue);
      const workers = await Promise.all(
        [1, 2].map(() =>
          startWorker({
            pool: database.worker.pool,
            queue,
            concurrency: 20,
            pairsMax: 50,
            drainTimeoutMs: 5_000,
          }),
        ),
      );
      const catchUps = [1, 2].map(() =>
        startCatchUp({
          pool: database.worker.pool,
          pairsMax: 50,
          pollMinMs: 5,
          pollMaxMs: 50,
          graceMs: () => 20,
        }),
      );
      const looking = openGiftEventsQueue(queue, () => {});
      try {
        const histories = fc.sample(fc.array(step, { minLength: 3, maxLength: 12 }), {
          seed,
          numRuns: HISTORIES,
        });
        while (histories.length > 0) {
          await Promise.all(
            histories.splice(0, HISTORIES_AT_ONCE).map((steps) => live(database, client, steps)),
          );
        }
        await eventually(
          async () => ({
            marks: await countMarks(database.pool),
            jobs: await looking.queue.getJobCountByTypes(
              'waiting',
              'active',
              'delayed',
              'prioritized',
            ),
          }),
          ({ marks, jobs }) => marks === 0 && jobs === 0,
        );
        expect(await wrongTotals(database.pool), `replay with PROPERTY_SEED=${seed}`).toEqual([]);
        expect(await looking.queue.getJobCountByTypes('failed')).toBe(0);
      } finally {
        await looking.close();
        await client.close();
        await Promise.all([...workers, ...catchUps].map(async (part) => await part.stop()));
        await database.close();
      }
    }, 120_000);
  });
});

/** One history on pairs of its own: 2 persons × 2 occasions. */
async function live(
  database: TestDatabase,
  client: GiftEventClient,
  steps: readonly Step[],
): Promise<void> {
  const { pool } = database.upstream;
  const { rows } = await pool.query(
    `with p as (insert into persons (name) values ('p'), ('q') returning id),
          o as (insert into occasions (name) values ('x'), ('y') returning id),
          g as (insert into gifts (name) values ('g') returning id)
     select p.id::text as "personId", o.id::text as "occasionId" from p cross join o`,
  );
  const pairs = rows as Pair[];
  for (const pair of pairs) await createBudget(pool, pair);
  const late: Promise<unknown>[] = [];
  for (const { what, at, to, amount, sending } of steps) {
    const pair = pairs[at]!;
    const target = pairs[to]!;
    const touched = what === 'move' ? [pair, target] : [pair];
    const send = async () => await client.giftMoved(touched, []);
    if (sending === 'before') await send();
    await change(database, what, pair, target, amount === null ? null : (amount / 100).toFixed(2));
    if (sending === 'once' || sending === 'twice') await send();
    if (sending === 'twice') await send();
    if (sending === 'late') late.push(sleep(50).then(send));
  }
  await Promise.all(late);
}

async function change(
  { pool: ownersPool, upstream: { pool } }: TestDatabase,
  what: Step['what'],
  pair: Pair,
  target: Pair,
  amount: string | null,
): Promise<void> {
  const key = [pair.personId, pair.occasionId];
  const newest = '(select max(id) from gift_persons where person_id = $1 and occasion_id = $2)';
  switch (what) {
    case 'assign':
      await assign(pool, pair, amount);
      break;
    case 'reprice':
      await pool.query(`update gift_persons set amount = $3 where id = ${newest}`, [
        ...key,
        amount,
      ]);
      break;
    case 'move':
      await pool.query(
        `update gift_persons set person_id = $3, occasion_id = $4 where id = ${newest}`,
        [...key, target.personId, target.occasionId],
      );
      break;
    case 'unassign':
      await pool.query(`delete from gift_persons where id = ${newest}`, key);
      break;
    case 'dropBudget':
      await pool.query(
        'delete from person_occasions where person_id = $1 and occasion_id = $2',
        key,
      );
      await createBudget(pool, pair);
      break;
    case 'foreignSave':
      await ownersPool.query(
        'update person_occasions set budget_spent = 1234.56 where person_id = $1 and occasion_id = $2',
        key,
      );
      break;
    case 'rollBack': {
      const other = await pool.connect();
      await other.query('begin');
      await assign(other, pair, amount);
      await other.query('rollback');
      other.release();
    }
  }
}
