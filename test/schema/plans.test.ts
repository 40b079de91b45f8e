import { afterAll, beforeAll, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

const PERSONS = 5_000;

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
  await database.pool.query(
    `insert into gifts (name) values ('g');
     insert into persons (name) select 'p' from generate_series(1, ${PERSONS});
     insert into occasions (name) select 'o' from generate_series(1, 5);
     insert into person_occasions (person_id, occasion_id) select p.id, o.id from persons p, occasions o;
     insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1, person_id, occasion_id, 1 from person_occasions, generate_series(1, 4)`,
  );
  await database.pool.query(
    'vacuum (analyze) gift_persons, person_occasions, pending_recalculations',
  );
});
afterAll(async () => {
  await database.close();
});

it('the sum of a pair, as the recalculation takes it, reads one index and no table', async () => {
  // The sum of src/recalculation/store-totals.ts, for 500 pairs.
  const plan = await explain(
    `select k.person_id, k.occasion_id, c.total
       from unnest((select array_agg(i) from generate_series(1, 500) i),
                   array_fill(3::bigint, array[500])) as k (person_id, occasion_id)
      cross join lateral (
        select round(coalesce(sum(c.amount), 0), 2) as total
          from budget_contributions c
         where c.person_id = k.person_id and c.occasion_id = k.occasion_id
      ) as c`,
  );
  const scans = plan.filter((node) => 'Relation Name' in node);
  expect(scans).toEqual([
    expect.objectContaining({
      'Node Type': 'Index Only Scan',
      'Index Name': 'idx_gift_person_contribution',
      'Heap Fetches': 0,
      'Actual Loops': 500,
    }),
  ]);
});

it('deleting a gift finds its assignments by an index', async () => {
  const [scan] = await explain('select from gift_persons where gift_id = 2');
  expect(scan).toMatchObject({ 'Index Name': 'idx_gift_person_gift' });
});

it('a new total touches no index: it is a HOT update', async () => {
  const client = await database.pool.connect();
  try {
    await client.query('begin');
    await client.query(`set local gift_budgets.recalculating = 'on'`);
    await client.query('update person_occasions set budget_spent = 4 where person_id % 20 = 0');
    const { rows } = await client.query<{ all: string; hot: string }>(
      `select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_xact_user_tables
        where relname = 'person_occasions'`,
    );
    await client.query('commit');
    expect(rows).toEqual([{ all: String(PERSONS / 4), hot: String(PERSONS / 4) }]);
  } finally {
    client.release();
  }
});

it.each([
  ['one pair', 'person_id = 77 and occasion_id = 3'],
  ['a person', 'person_id = 77'],
  ['an occasion, a page', 'occasion_id = 3 and person_id > 70 order by person_id limit 50'],
])('budget_status for %s reads budgets and marks by index alone', async (_, condition) => {
  const plan = await explain(`select * from budget_status where ${condition}`);
  const scans = plan.filter((node) => 'Relation Name' in node || 'Index Name' in node);
  expect(scans.map((node) => node['Node Type'])).not.toContain('Seq Scan');
  expect(plan.map((node) => node['Node Type'])).not.toContain('Sort');
  const budgets = scans.find((node) => node['Relation Name'] === 'person_occasions');
  expect(budgets!['Index Name']).toMatch(/^(person_occasions_pkey|idx_person_occasion_\w+)$/);
  expect(budgets!['Actual Rows']).toBeLessThanOrEqual(50);
  const marks = scans.map((node) => node['Index Name']);
  expect(marks).toContain('idx_pending_recalculation_pair');
  expect(marks).toContain('idx_pending_recalculation_everything');
});

it('budget_status looks for marks only where a query asks for what is pending', async () => {
  const plan = await explain('select spent, percent_used from budget_status where person_id = 77');
  const scans = plan.filter((node) => 'Relation Name' in node);
  expect(scans.map((node) => node['Relation Name'])).toEqual(['person_occasions']);
});

type PlanNode = Readonly<Record<string, unknown>> & { readonly Plans?: readonly PlanNode[] };

/** The nodes of the plan that the statement ran with, from the top. */
async function explain(statement: string): Promise<PlanNode[]> {
  const { rows } = await database.pool.query(`explain (analyze, format json) ${statement}`);
  return nodes(rows[0]['QUERY PLAN'][0].Plan as PlanNode);
}

function nodes(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(nodes)];
}
