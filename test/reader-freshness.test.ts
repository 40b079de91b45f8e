import { afterAll, beforeAll, beforeEach, describe, expect, expectTypeOf, test } from 'vitest';
import type { Budget, BudgetWithPending } from '../src/budgets/budget.ts';
import type { Page } from '../src/budgets/page.ts';
import { BudgetReader } from '../src/budgets/reader.ts';
import type { Queryable } from '../src/database.ts';
import type { Pair } from '../src/events/contract.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { assign, seedPairs } from './support/budgets.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let reader: BudgetReader;
let pairs: Pair[];

beforeAll(async () => {
  database = await createTestDatabase();
  reader = new BudgetReader(database.reader.pool);
});

/** Three persons by two occasions, all over budget: 1-1, 1-2, 2-1 … 3-2. */
beforeEach(async () => {
  const { pool } = database;
  await pool.query('truncate persons, occasions, gifts restart identity cascade');
  pairs = await seedPairs(pool, 3, 2);
  await pool.query('update person_occasions set budget_amount = 0, budget_spent = 1');
  await pool.query('truncate pending_recalculations, recalculation_failures');
});

afterAll(async () => {
  await database.close();
});

const pendingOf = (budgets: readonly BudgetWithPending[]): string[] =>
  budgets
    .filter((budget) => budget.isPending)
    .map(({ personId, occasionId }) => `${personId}-${occasionId}`);

const pendingOver = async (): Promise<string[]> =>
  pendingOf((await reader.overBudget({ pending: true })).items);

/** What each read says of a pair must be the same. */
async function isPending({ personId, occasionId }: Pair): Promise<boolean> {
  const asked = { pending: true } as const;
  const budget = await reader.budget({ personId, occasionId }, asked);
  const pages = [
    await reader.budgetsOfPerson(personId, asked),
    await reader.budgetsOfOccasion(occasionId, asked),
    await reader.overBudget(asked),
  ];
  const said = pages.map(({ items }) =>
    items.find((item) => item.personId === personId && item.occasionId === occasionId)!,
  );
  expect(said).toEqual([budget, budget, budget]);
  return budget!.isPending;
}

describe('whether a change is pending', () => {
  test('no mark: nothing is', async () => {
    expect(await pendingOver()).toEqual([]);
    for (const pair of pairs) expect(await isPending(pair)).toBe(false);
  });

  test('a mark of the pair, or two: that pair and no other, until it is recalculated', async () => {
    await assign(database.upstream.pool, pairs[2]!, '5.00');
    await assign(database.upstream.pool, pairs[2]!, '6.00');
    expect(await pendingOver()).toEqual(['2-1']);
    expect(await Promise.all(pairs.map(isPending))).toEqual([
      false,
      false,
      true,
      false,
      false,
      false,
    ]);
    await catchUpOnce({
      pool: database.worker.pool,
      pairsMax: 500,
      pollMinMs: 1,
      pollMaxMs: 1,
      graceMs: () => 0,
    });
    expect(await reader.budget(pairs[2]!, { pending: true })).toMatchObject({
      spent: '11.00',
      isPending: false,
    });
  });

  test('a mark for everything without a key: all', async () => {
    await database.pool.query('insert into pending_recalculations (everything) values (true)');
    expect(await pendingOver()).toHaveLength(6);
    for (const pair of pairs) expect(await isPending(pair)).toBe(true);
  });

  test.each([
    ['2', '1', ['2-2', '3-1', '3-2']],
    ['2', '2', ['3-1', '3-2']],
    ['1', '9', ['2-1', '2-2', '3-1', '3-2']],
    ['3', '2', []],
  ])('a mark for everything up to %s-%s: those behind it', async (person, occasion, expected) => {
    await database.pool.query(
      'insert into pending_recalculations (everything, person_id, occasion_id) values (true, $1, $2)',
      [person, occasion],
    );
    expect(await pendingOver()).toEqual(expected);
    for (const pair of pairs) {
      expect(await isPending(pair)).toBe(expected.includes(`${pair.personId}-${pair.occasionId}`));
    }
  });

  test('several marks for everything: those behind the least of their keys', async () => {
    await database.pool.query(
      `insert into pending_recalculations (everything, person_id, occasion_id)
       values (true, 3, 1), (true, 2, 1), (true, 2, 2)`,
    );
    expect(await pendingOver()).toEqual(['2-2', '3-1', '3-2']);
  });

  test('no budget is null, marked or not', async () => {
    await database.pool.query('insert into pending_recalculations (everything) values (true)');
    expect(await reader.budget({ personId: 9, occasionId: 9 }, { pending: true })).toBeNull();
  });

  test('pages with it go on where the one before ended, asked for or not', async () => {
    await assign(database.upstream.pool, pairs[5]!, '1.00');
    const first = await reader.overBudget({ limit: 4, pending: true });
    const second = await reader.overBudget({ limit: 4, after: first.next, pending: true });
    expect(pendingOf([...first.items, ...second.items])).toEqual(['3-2']);
    expect(first.items.length + second.items.length).toBe(6);
    const plain = await reader.overBudget({ limit: 4, after: first.next });
    expect(second.items).toEqual(
      plain.items.map((budget) => ({ ...budget, isPending: expect.any(Boolean) })),
    );
  });
});

describe('asked for and not asked for', () => {
  test('isPending is there only where it was asked for', async () => {
    const [pair] = pairs;
    expect(await reader.budget(pair!)).not.toHaveProperty('isPending');
    expect(await reader.budget(pair!, { pending: false })).not.toHaveProperty('isPending');
    expect(await reader.budget(pair!, { pending: true })).toHaveProperty('isPending', false);
    expect((await reader.overBudget()).items[0]).not.toHaveProperty('isPending');
  });

  test('the types say so', () => {
    const ask = () => ({
      plain: reader.budget(pairs[0]!),
      not: reader.budget(pairs[0]!, { pending: false }),
      told: reader.budget(pairs[0]!, { pending: true }),
      either: reader.budget(pairs[0]!, { pending: Math.random() > 2 }),
      page: reader.budgetsOfPerson(1, { limit: 5 }),
      toldPage: reader.budgetsOfOccasion(1, { limit: 5, pending: true }),
      // @ts-expect-error: a typing error in the name of an option
      typo: reader.overBudget({ pendig: true }),
    });
    type Asked = ReturnType<typeof ask>;
    expectTypeOf<Awaited<Asked['plain']>>().toEqualTypeOf<Budget | null>();
    expectTypeOf<Awaited<Asked['not']>>().toEqualTypeOf<Budget | null>();
    expectTypeOf<Awaited<Asked['told']>>().toEqualTypeOf<BudgetWithPending | null>();
    expectTypeOf<Awaited<Asked['either']>>().toEqualTypeOf<Budget | BudgetWithPending | null>();
    expectTypeOf<Awaited<Asked['page']>>().toEqualTypeOf<Page<Budget>>();
    expectTypeOf<Awaited<Asked['toldPage']>>().toEqualTypeOf<Page<BudgetWithPending>>();
  });

  test('not asked, the marks are not looked at', async () => {
    const sent: string[] = [];
    const recording: Queryable = {
      query: async (text, values) => {
        sent.push(text);
        return await database.reader.pool.query(text, values);
      },
    };
    const recorded = new BudgetReader(recording);
    await recorded.budget(pairs[0]!);
    await recorded.budgetsOfPerson(1);
    await recorded.budgetsOfOccasion(1, { pending: false });
    await recorded.overBudget();
    expect(sent).toHaveLength(4);
    expect(sent.filter((text) => text.includes('pending'))).toEqual([]);
  });

  test.each<[unknown, string]>([
    ['yes', '"yes"'],
    [1, '1'],
    [null, 'null'],
  ])('pending: %s is refused', async (pending, shown) => {
    const given = { pending: pending as boolean };
    const refusal = {
      code: 'BUDGET_QUERY_INVALID',
      message: `pending: expected true or false, got ${shown}`,
    };
    await expect(reader.budget(pairs[0]!, given)).rejects.toMatchObject(refusal);
    await expect(reader.budgetsOfPerson(1, given)).rejects.toMatchObject(refusal);
    await expect(reader.overBudget(given)).rejects.toMatchObject(refusal);
  });
});
