import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Pair } from '../src/events/contract.ts';
import { type CatchUpOptions, catchUpOnce, startCatchUp } from '../src/recalculation/catch-up.ts';
import { recalculate } from '../src/recalculation/recalculate.ts';
import { markEverything } from '../src/recalculation/write-marks.ts';
import {
  assign,
  countMarks,
  eventually,
  markedPairs,
  seedPairs,
  spent,
  wrongTotals,
} from './support/budgets.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let options: CatchUpOptions;
let pairs: Pair[];

beforeAll(async () => {
  database = await createTestDatabase();
  const timing = { pollMinMs: 10, pollMaxMs: 250, graceMs: () => 0 };
  options = { pool: database.worker.pool, pairsMax: 5, ...timing };
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  await database.pool.query('truncate persons, occasions, gifts cascade');
  await database.pool.query('truncate pending_recalculations');
  pairs = await seedPairs(database.pool, 6, 3);
});

const catchUp = async (): Promise<void> => {
  while (await catchUpOnce(options));
};

it('with no event, every changed total becomes right and no mark is left', async () => {
  for (const pair of pairs) await assign(database.upstream.pool, pair, '12.34');
  await catchUp();
  expect(await wrongTotals(database.pool)).toEqual([]);
  expect(await countMarks(database.pool)).toBe(0);
});

it('two loops at once take different marks, and both stop when asked to', async () => {
  const batches: string[][] = [[], []];
  const loops = batches.map((seen) =>
    startCatchUp({
      ...options,
      observer: {
        batch: (_cause, results) => seen.push(...results.map(({ personId }) => personId)),
      },
    }),
  );
  for (let round = 0; round < 20; round += 1) {
    await Promise.all(
      pairs.map(async (pair) => await assign(database.upstream.pool, pair, '0.10')),
    );
  }
  await eventually(
    async () => await countMarks(database.pool),
    (marks) => marks === 0,
  );
  await Promise.all(loops.map(async (loop) => await loop.stop()));
  expect(await wrongTotals(database.pool)).toEqual([]);
  await assign(database.upstream.pool, pairs[0]!, '1.00');
  const seen = batches.flat().length;
  expect(await countMarks(database.pool)).toBe(1);
  expect(batches.flat()).toHaveLength(seen);
});

it('a mark younger than the grace is left to its event, an older one is not', async () => {
  await assign(database.upstream.pool, pairs[0]!, '1.00');
  expect(await catchUpOnce({ ...options, graceMs: () => 60_000 })).toBe(false);
  expect(await countMarks(database.pool)).toBe(1);
  await database.pool.query(
    `update pending_recalculations set marked_at = marked_at - interval '2 minutes'`,
  );
  expect(await catchUpOnce({ ...options, graceMs: () => 60_000 })).toBe(true);
  expect(await spent(database.pool, pairs[0]!)).toBe('1.00');
});

it('many marks of one pair cost one sum', async () => {
  for (let change = 0; change < 40; change += 1)
    await assign(database.upstream.pool, pairs[0]!, '1.00');
  const sums: unknown[] = [];
  const observer = {
    batch: (_cause: unknown, results: readonly unknown[]) => sums.push(...results),
  };
  while (await catchUpOnce({ ...options, observer }));
  expect(sums).toHaveLength(1);
  expect(await spent(database.pool, pairs[0]!)).toBe('40.00');
});

it('the loop goes on after its connection was cut', async () => {
  const errors: unknown[] = [];
  const observer = { retry: (_cause: unknown, error: unknown) => errors.push(error) };
  const loop = startCatchUp({ ...options, pool: database.worker.pool, observer });
  const migration = await database.pool.connect();
  try {
    await assign(database.upstream.pool, pairs[0]!, '1.00');
    await migration.query('begin; lock table pending_recalculations in access exclusive mode');
    await eventually(
      async () => {
        await migration.query(
          `select pg_terminate_backend(pid) from pg_stat_activity
            where wait_event_type = 'Lock' and datname = current_database()`,
        );
        return errors.length;
      },
      (count) => count > 0,
    );
  } finally {
    await migration.query('rollback');
    migration.release();
  }
  await assign(database.upstream.pool, pairs[1]!, '1.00');
  await eventually(
    async () => await countMarks(database.pool),
    (marks) => marks === 0,
  );
  await loop.stop();
  expect(await wrongTotals(database.pool)).toEqual([]);
});

it('a mark for everything is walked in chunks to the last budget', async () => {
  for (const pair of pairs) await assign(database.upstream.pool, pair, '1.00');
  await database.pool.query('truncate pending_recalculations');
  await markEverything(database.pool);
  await catchUp();
  expect(await wrongTotals(database.pool)).toEqual([]);
  expect(await countMarks(database.pool)).toBe(0);
});

it('a row that somebody holds keeps its mark and holds up no other', async () => {
  const [held, ...others] = pairs;
  for (const pair of pairs) await assign(database.upstream.pool, pair, '3.00');
  const marks = await countMarks(database.pool);
  const holder = await database.pool.connect();
  try {
    await holder.query('begin');
    await holder.query(
      `update person_occasions set budget_notes = 'editing'
        where person_id = $1 and occasion_id = $2`,
      [held!.personId, held!.occasionId],
    );
    await catchUp();
    for (const pair of others) expect(await spent(database.pool, pair)).toBe('3.00');
    expect(await spent(database.pool, held!)).toBe('0.00');
    expect(await markedPairs(database.pool)).toEqual([`${held!.personId}-${held!.occasionId}`]);
    expect(await countMarks(database.pool)).toBeLessThan(marks);
  } finally {
    await holder.query('commit');
    holder.release();
  }
  await catchUp();
  expect(await wrongTotals(database.pool)).toEqual([]);
});

it('a sum that does not fit is listed with its reason, harms no other, and heals', async () => {
  const [big] = pairs;
  await assign(database.upstream.pool, big!, '99999999.99');
  const extra = await assign(database.upstream.pool, big!, '0.01');
  for (const pair of pairs.slice(1)) await assign(database.upstream.pool, pair, '2.00');
  await catchUp();
  for (const pair of pairs.slice(1)) expect(await spent(database.pool, pair)).toBe('2.00');
  const { rows } = await database.pool.query('select reason, total from recalculation_failures');
  expect(rows).toEqual([
    {
      reason: 'the sum 100000000.00 does not fit budget_spent, a numeric(10,2)',
      total: '100000000.00',
    },
  ]);
  await database.pool.query('delete from gift_persons where id = $1', [extra]);
  await catchUp();
  expect(await spent(database.pool, big!)).toBe('99999999.99');
  expect((await database.pool.query('select from recalculation_failures')).rowCount).toBe(0);
});

it('an event for a busy pair leaves it a mark; an unknown pair is missing', async () => {
  const holder = await database.pool.connect();
  try {
    await holder.query('begin; select from person_occasions for update');
    const unknown = { personId: '987654321', occasionId: '1' };
    const results = await recalculate(database.worker.pool, [pairs[0]!, unknown]);
    expect(results.map(({ outcome }) => outcome)).toEqual(['busy', 'missing']);
    expect(await countMarks(database.pool)).toBe(1);
  } finally {
    await holder.query('rollback');
    holder.release();
  }
});

it('whoever replaces budget_contributions changes what is computed', async () => {
  const other = await createTestDatabase();
  try {
    const [pair] = await seedPairs(other.pool, 1, 1);
    await other.pool.query('alter table gifts add column bought boolean not null default false');
    await other.pool.query(
      `create or replace view budget_contributions (person_id, occasion_id, amount) as
       select a.person_id, a.occasion_id, a.amount
         from gift_persons a join gifts g on g.id = a.gift_id where g.bought`,
    );
    await assign(other.pool, pair!, '10.00');
    const outcome = async () => (await recalculate(other.pool, [pair!]))[0];
    expect(await outcome()).toMatchObject({ outcome: 'unchanged', after: '0.00' });
    await other.pool.query('update gifts set bought = true');
    expect(await outcome()).toMatchObject({ outcome: 'changed', before: '0.00', after: '10.00' });
  } finally {
    await other.close();
  }
});
