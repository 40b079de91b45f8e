import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BudgetReader } from '../src/budgets/reader.ts';
import type { Queryable } from '../src/database.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const PERSONS = 20_000;
const OCCASIONS = 12; // 240,000 budgets

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
  const { pool } = database;
  await pool.query(
    `insert into persons (name) select 'p' || i from generate_series(1, $1::int) i`,
    [PERSONS],
  );
  await pool.query(
    `insert into occasions (name) select 'o' || i from generate_series(1, $1::int) i`,
    [OCCASIONS],
  );
  // Foreign keys and marks, looked after 240,000 times, are not what this is about.
  await pool.query('alter table person_occasions disable trigger all');
  // A third without an amount.
  await fill('(p.id + o.id) % 3 > 0');
}, 120_000);

afterAll(async () => {
  await database.close();
});

/** In random order, as a table is after years; one total in ten is over what its budget may be. */
async function fill(hasAmount: string): Promise<void> {
  const { pool } = database;
  await pool.query('truncate person_occasions cascade');
  await pool.query(
    `insert into person_occasions (person_id, occasion_id, budget_amount, budget_spent)
     select p.id, o.id, case when ${hasAmount} then 100 end,
            case when (p.id * 7 + o.id) % 10 = 0 then 100.01 else 0 end
       from persons p, occasions o
      order by hashint8(p.id * 100 + o.id)`,
  );
  await pool.query('vacuum analyze person_occasions');
}

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Index Name'?: string;
  readonly 'Index Cond'?: string;
  readonly 'Actual Rows'?: number;
  readonly 'Rows Removed by Filter'?: number;
  readonly Plans?: readonly PlanNode[];
}

interface Seen {
  readonly queries: number;
  readonly nodes: readonly PlanNode[];
  readonly index: PlanNode;
}

/** Runs a read, and explains the very statement it sent. */
async function planOf(read: (reader: BudgetReader) => Promise<unknown>): Promise<Seen> {
  const sent: [text: string, values: unknown[] | undefined][] = [];
  const recording: Queryable = {
    query: async (text, values) => {
      sent.push([text, values]);
      return await database.pool.query(text, values);
    },
  };
  await read(new BudgetReader(recording));
  const [text, values] = sent[0]!;
  return { queries: sent.length, ...(await explain('analyze', text, values)) };
}

async function explain(how: string, text: string, values?: unknown[]) {
  const { rows } = await database.pool.query(`explain (${how}, format json) ${text}`, values);
  const nodes = flatten(rows[0]['QUERY PLAN'][0].Plan);
  return { nodes, index: nodes.find((node) => node['Index Name'] !== undefined)! };
}

function flatten(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(flatten)];
}

async function middleOf(
  read: (reader: BudgetReader, after: string | null) => Promise<{ next: string | null }>,
  pages: number,
): Promise<string> {
  const reader = new BudgetReader(database.reader.pool);
  let after: string | null = null;
  for (let page = 0; page < pages; page += 1) after = (await read(reader, after)).next;
  expect(after).not.toBeNull();
  return after!;
}

/** One index scan that ends at the limit; nothing that looks at the whole table, nothing sorted. */
function expectIndexOnly(seen: Seen, indexes: readonly string[]): void {
  expect(seen.queries).toBe(1);
  const types = seen.nodes.map((node) => node['Node Type']);
  expect(types.filter((type) => type !== 'Limit')).toEqual(['Index Scan']);
  expect(indexes).toContain(seen.index['Index Name']);
}

const BY_PERSON = ['person_occasions_pkey', 'idx_person_occasion_budget'];
const BY_OCCASION = ['idx_person_occasion_occasion'];

describe('on 240,000 budgets each read is one scan of an index', () => {
  test('one pair', async () => {
    const seen = await planOf((reader) => reader.budget({ personId: 9_999, occasionId: 7 }));
    expectIndexOnly(seen, [...BY_PERSON, ...BY_OCCASION]);
    expect(seen.index['Index Cond']).toContain('person_id = ');
    expect(seen.index['Index Cond']).toContain('occasion_id = ');
  });

  test('all of a person', async () => {
    const read = (reader: BudgetReader, after: string | null) =>
      reader.budgetsOfPerson(9_999, { limit: 5, after });
    const after = await middleOf(read, 1);
    for (const cursor of [null, after]) {
      const seen = await planOf((reader) => read(reader, cursor));
      expectIndexOnly(seen, BY_PERSON);
      expect(seen.index['Index Cond']).toContain('person_id = ');
    }
  });

  test('all for an occasion', async () => {
    const read = (reader: BudgetReader, after: string | null) =>
      reader.budgetsOfOccasion(7, { limit: 1_000, after });
    const [middle, late] = [await middleOf(read, 10), await middleOf(read, 19)];
    for (const cursor of [null, middle, late]) {
      const seen = await planOf((reader) => read(reader, cursor));
      expectIndexOnly(seen, BY_OCCASION);
      expect(seen.index['Index Cond']).toContain('occasion_id = ');
    }
  });

  test.each([100, 1_000])('those over budget, %i a page: no further than needed', async (limit) => {
    const read = (reader: BudgetReader, after: string | null) =>
      reader.overBudget({ limit, after });
    const middle = await middleOf(read, 8_000 / limit);
    for (const cursor of [null, middle]) {
      const seen = await planOf((reader) => read(reader, cursor));
      expectIndexOnly(seen, BY_PERSON);
      // One in fifteen is over: of those with an amount, two in three, one in ten.
      expect(seen.index['Actual Rows']).toBe(limit + 1);
      expect(seen.index['Rows Removed by Filter']).toBeLessThan(25 * limit);
    }
  });
});

describe('where few budgets have an amount', () => {
  test('those over budget are found without a look at the rest', async () => {
    await fill('p.id % 20 = 0');
    const seen = await planOf((reader) => reader.overBudget());
    expectIndexOnly(seen, ['idx_person_occasion_budget']);
    expect(seen.index['Index Cond']).toContain('budget_amount IS NOT NULL');
    const withAmount = (PERSONS / 20) * OCCASIONS;
    const { 'Actual Rows': found = 0, 'Rows Removed by Filter': others = 0 } = seen.index;
    expect(found + others).toBeLessThanOrEqual(withAmount);
  }, 120_000);
});

describe('with marks of every other budget, told what is pending', () => {
  const asked = { pending: true } as const;
  const reads: [string, readonly string[], (reader: BudgetReader) => Promise<unknown>][] = [
    [
      'one pair',
      [...BY_PERSON, ...BY_OCCASION],
      (reader) => reader.budget({ personId: 9_999, occasionId: 7 }, asked),
    ],
    ['all of a person', BY_PERSON, (reader) => reader.budgetsOfPerson(9_999, asked)],
    [
      'all for an occasion',
      BY_OCCASION,
      (reader) => reader.budgetsOfOccasion(7, { limit: 1_000, ...asked }),
    ],
    ['those over budget', BY_PERSON, (reader) => reader.overBudget({ limit: 1_000, ...asked })],
  ];

  beforeAll(async () => {
    await fill('(p.id + o.id) % 3 > 0');
    await database.pool.query('truncate pending_recalculations');
  }, 120_000);

  /** The budgets as ever, and beside them a probe of an index for each, never all the marks. */
  function expectProbes(seen: Seen, indexes: readonly string[]): void {
    expect(seen.queries).toBe(1);
    const scans = seen.nodes.filter((node) => node['Node Type'].includes('Scan'));
    const used = scans.map((node) => node['Index Name'] ?? node['Node Type']);
    const budgets = used.filter((name) => indexes.includes(name));
    expect(budgets).toHaveLength(1);
    expect(used.filter((name) => name === 'idx_pending_recalculation_pair')).toHaveLength(1);
    expect(used.filter((name) => name === 'idx_pending_recalculation_everything')).toHaveLength(1);
    expect(used).not.toContain('Seq Scan');
    for (const scan of scans) expect(scan['Actual Rows'] ?? 0).toBeLessThanOrEqual(1_001);
  }

  test.each(reads)('%s, where no mark was ever counted', async (_, indexes, read) => {
    expectProbes(await planOf(read), indexes);
  });

  describe('of 240,000 marks', () => {
    beforeAll(async () => {
      await database.pool.query(
        `insert into pending_recalculations (person_id, occasion_id)
         select person_id, 1 + (occasion_id / 2) * 2 from person_occasions`,
      );
      await database.pool.query('vacuum analyze pending_recalculations');
    }, 120_000);

    test.each(reads)('%s', async (_, indexes, read) => {
      expectProbes(await planOf(read), indexes);
    });

    test('the lag: the first marks by id, and no more', async () => {
      const seen = await planOf((reader) => reader.lag());
      expect(seen.queries).toBe(1);
      const scans = seen.nodes.filter((node) => node['Node Type'].includes('Scan'));
      expect(scans.map((node) => node['Node Type'])).not.toContain('Seq Scan');
      expect(
        scans.find((node) => node['Index Name'] === 'pending_recalculations_pkey'),
      ).toMatchObject({ 'Actual Rows': 10_001 });
      await database.pool.query('insert into pending_recalculations (everything) values (true)');
      const all = await planOf((reader) => reader.lag());
      const read = all.nodes.filter((node) => node['Index Name'] !== undefined);
      for (const node of read) expect(node['Actual Rows']).toBeLessThanOrEqual(10_001);
      expect(all.nodes.map((node) => node['Node Type'])).not.toContain('Seq Scan');
    });

    test('waiting: a few probes for each look', async () => {
      await database.pool.query('delete from pending_recalculations where everything');
      const seen = await planOf((reader) =>
        reader.waitUntilFresh({ personId: 9_999, occasionId: 7 }, 0).catch(() => {}),
      );
      for (const node of seen.nodes) {
        expect(node['Node Type']).not.toBe('Seq Scan');
        expect(node['Actual Rows'] ?? 0).toBeLessThanOrEqual(2);
      }
    });
  });
});

test('budget_spent stands in no index, so that its updates stay cheap', async () => {
  const { rows } = await database.pool.query(
    `select indexdef from pg_indexes where schemaname = current_schema() and indexdef like '%budget_spent%'`,
  );
  expect(rows).toEqual([]);
});
