import { afterAll, beforeAll, expect, it } from 'vitest';
import { pickMarks } from '../src/recalculation/pick-marks.ts';
import { lastSweeps } from '../src/recalculation/sweep-record.ts';
import { inRecalculationTransaction } from '../src/recalculation/transaction.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});

it('picks the oldest marks first, by their number and not by its digits', async () => {
  await database.pool.query(
    `insert into pending_recalculations (id, person_id, occasion_id)
     select n, n, 1 from generate_series(1, 120) n order by random()`,
  );
  const ids = await inRecalculationTransaction(database.worker.pool, async (client) => {
    const first = await pickMarks(client, '0', 0, 50);
    const second = await pickMarks(client, first.at(-1)!.id, 0, 50);
    return [...first, ...second].map(({ id }) => Number(id));
  });
  expect(ids).toEqual(Array.from({ length: 100 }, (_, n) => n + 1));
});

it('reads the marks in the order of their index, without sorting all there are', async () => {
  await database.pool.query('truncate pending_recalculations restart identity');
  await database.pool.query(
    `insert into pending_recalculations (person_id, occasion_id)
     select n, 1 from generate_series(1, 20000) n`,
  );
  await inRecalculationTransaction(database.worker.pool, async (client) => {
    const explaining = {
      query: async (text: string, values?: unknown[]) =>
        await client.query(`explain ${text}`, values),
    };
    const plan = (await pickMarks(explaining, '0', 0, 500)).map((row) => Object.values(row).join());
    expect(plan.join('\n')).toContain('Index Scan using pending_recalculations_pkey');
    expect(plan.join('\n')).not.toContain('Sort');
  });
});

it('the last sweeps come by their number too', async () => {
  await database.pool.query(
    `insert into budget_sweeps (mode, finished_at) select 'repair', now() from generate_series(1, 12)`,
  );
  const ids = (await lastSweeps(database.worker.pool, 4)).map(({ id }) => id);
  expect(ids).toEqual(['12', '11', '10', '9']);
});
