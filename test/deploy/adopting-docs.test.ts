import { afterAll, beforeAll, expect, it } from 'vitest';
import { migrate } from '../../src/database.ts';
import { catchUpOnce } from '../../src/recalculation/catch-up.ts';
import { eventually, markedPairs } from '../support/budgets.ts';
import { catalog } from '../support/catalog.ts';
import { codeBlocks, readDocument } from '../support/documents.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';

// The worked example of docs/adopting.md, from its tables to the way back.

const page = readDocument('docs/adopting.md');
const [schema, rule, question, farewell] = codeBlocks(page, 'sql') as [
  string,
  string,
  string,
  string,
];

let database: TestDatabase;
let before: string[];

beforeAll(async () => {
  expect(codeBlocks(page, 'sql')).toHaveLength(4);
  database = await createEmptyDatabase();
  await database.pool.query(schema);
  before = await catalog(database);
  await migrate(database);
  await database.pool.query(rule);
});
afterAll(async () => {
  await database.close();
});

async function catchUp(): Promise<void> {
  const { pool } = database;
  while (await catchUpOnce({ pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 }));
}

/** Every stored total that is not the sum of its gifts in lists, summed from the tables. */
async function wrong(): Promise<object[]> {
  const { rows } = await database.pool.query(
    `select b.person_id, b.occasion_id, b.budget_spent, t.total
       from person_occasions b
      cross join lateral (
        select coalesce(sum(i.price), 0) as total from list_items i
         where i.occasion_id = b.occasion_id
           and i.gift_id in (select gift_id from gift_persons where person_id = b.person_id)
      ) as t
      where b.budget_spent <> t.total`,
  );
  return rows;
}

it('gives the totals that the page tells', async () => {
  await catchUp();
  const { rows } = await database.pool.query(question);
  const told = page.split('\n').filter((line) => /^\| \d \| \d \|/.test(line));
  expect(rows.map((row) => `| ${Object.values(row as object).join(' | ')} |`)).toEqual(told);
  expect(await wrong()).toEqual([]);
});

it.each([
  `insert into list_items (occasion_id, gift_id, price) values (2, 1, 7.5)`,
  `update list_items set price = 81 where gift_id = 1`,
  `update list_items set price = null where gift_id = 2`,
  `update list_items set price = 3 where gift_id = 2`,
  `insert into occasions (name) values ('Birthday');
   insert into person_occasions (person_id, occasion_id) values (1, 3), (2, 3);
   update list_items set occasion_id = 3 where gift_id = 1 and occasion_id = 1`,
  `insert into gift_persons (gift_id, person_id) values (1, 2)`,
  `delete from gift_persons where (gift_id, person_id) = (1, 1)`,
  `delete from list_items where gift_id = 2 and occasion_id = 1`,
  `insert into gifts (id, name) values (3, 'kite');
   insert into list_items (occasion_id, gift_id, price) values (1, 3, 5), (2, 3, 6);
   insert into gift_persons (gift_id, person_id) values (3, 1), (3, 2)`,
  `delete from gift_persons where (gift_id, person_id) = (2, 2);
   update gift_persons set gift_id = 2 where (gift_id, person_id) = (3, 2)`,
  `delete from gifts where id = 3`,
  `truncate list_items`,
])('is right after %s', async (change) => {
  await database.pool.query(change);
  await catchUp();
  expect(await wrong()).toEqual([]);
});

it('of two transactions that add one side each, the second sees the first', async () => {
  await database.pool.query(`insert into gifts (id, name) values (4, 'drum')`);
  await catchUp();
  const [first, second] = [await database.pool.connect(), await database.pool.connect()];
  try {
    await first.query('begin; insert into gift_persons (gift_id, person_id) values (4, 1)');
    await second.query('begin');
    const listed = second.query(
      `insert into list_items (occasion_id, gift_id, price) values (1, 4, 9)`,
    );
    await eventually(
      async () =>
        await database.pool.query(
          `select from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into list_items%'`,
        ),
      ({ rowCount }) => rowCount === 1,
    );
    await first.query('commit');
    await listed;
    await second.query('commit');
  } finally {
    first.release();
    second.release();
  }
  expect(await markedPairs(database.pool)).toEqual(['1-1']);
  await catchUp();
  expect(await wrong()).toEqual([]);
});

it('functions that mark: one pair, many, all, and nothing of what is no pair', async () => {
  const { pool } = database;
  await pool.query(
    `select mark_budget(1, 2), mark_budget(null, 2), mark_budget(1, null),
            mark_budgets(array[2, 2, null], array[1, 1, 1]), mark_budgets(null, null)`,
  );
  expect(await markedPairs(pool)).toEqual(['1-2', '2-1']);
  const { rows } = await pool.query('select count(*)::int as marks from pending_recalculations');
  expect(rows).toEqual([{ marks: 2 }]);
  await pool.query('select mark_all_budgets()');
  expect(await markedPairs(pool)).toContain('everything');
  await catchUp();
});

it('whoever writes lists needs no right of ours, and may not mark by himself', async () => {
  const client = await database.pool.connect();
  try {
    await client.query('begin; create role list_writer');
    await client.query('grant insert on list_items to list_writer');
    await client.query('set local role list_writer; set local search_path = pg_temp');
    await client.query(
      'insert into public.list_items (id, occasion_id, gift_id, price) values (100, 2, 2, 1)',
    );
    await expect(client.query('select public.mark_budget(1, 1)')).rejects.toMatchObject({
      code: '42501',
    });
  } finally {
    await client.query('rollback');
    client.release();
  }
});

it('goes back once nothing calls our functions, and then nothing of ours is left', async () => {
  const { migrator } = database.orm;
  await expect(migrator.down({ to: 0 })).rejects.toThrow(
    'cannot be dropped while other functions call them: ' +
      'mark_changed_items(), mark_changed_persons(), mark_deleted_gift(), mark_truncated(). Drop those first',
  );
  await database.pool.query(farewell);
  await migrator.down({ to: 0 });
  expect(await catalog(database)).toEqual(before);
});
