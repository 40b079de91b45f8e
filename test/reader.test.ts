import { Decimal } from 'decimal.js';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Budget } from '../src/budgets/budget.ts';
import type { Page, PageRequest } from '../src/budgets/page.ts';
import { BudgetReader } from '../src/budgets/reader.ts';
import { type BudgetInRows, randomBudgets, storeBudgets } from './support/random-budgets.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let reader: BudgetReader;

beforeAll(async () => {
  database = await createTestDatabase();
  reader = new BudgetReader(database.reader.pool);
});

afterAll(async () => {
  await database.close();
});

async function allPages(
  read: (page: PageRequest) => Promise<Page<Budget>>,
  limit: number,
): Promise<Budget[]> {
  const budgets: Budget[] = [];
  let after: string | null = null;
  do {
    const page: Page<Budget> = await read({ limit, after });
    expect(page.items.length).toBeLessThanOrEqual(limit);
    // A page that says that another follows is full, and the other is not empty.
    if (page.next !== null) expect(page.items.length).toBe(limit);
    if (after !== null) expect(page.items.length).toBeGreaterThan(0);
    budgets.push(...page.items);
    after = page.next;
  } while (after !== null);
  return budgets;
}

describe('a budget', () => {
  const pair = { personId: '9007199254740993', occasionId: '9223372036854775807' };
  const budget = { ...pair, currency: 'EUR', notes: 'a bike, "blue"' };

  test('is null where there is none', async () => {
    expect(await reader.budget({ personId: 1, occasionId: 2n })).toBeNull();
  });

  test('has its money as decimal strings, and ids that no JavaScript number can hold', async () => {
    await storeBudgets(database.pool, [{ ...budget, amount: '300', spent: '100' }]);
    expect(await reader.budget(pair)).toEqual({
      ...budget,
      amount: '300.00',
      spent: '100.00',
      remaining: '200.00',
      percentUsed: '33.33',
      isOver: false,
    });
    const ids = { personId: 9007199254740993n, occasionId: 2n ** 63n - 1n };
    expect(await reader.budget(ids)).toMatchObject(pair);
  });

  test.each([
    ['no budget set', null, '5.00', null, null, false],
    ['nothing may be spent, nothing is', '0.00', '0.00', '0.00', null, false],
    ['nothing may be spent, a cent is', '0.00', '0.01', '-0.01', null, true],
    ['all is spent', '10.00', '10.00', '0.00', '100.00', false],
    ['a cent too much is spent', '10.00', '10.01', '-0.01', '100.10', true],
    ['much too much is spent', '0.01', '99999999.99', '-99999999.98', '999999999900.00', true],
    ['a refund outweighs the rest', '10.00', '-2.50', '12.50', '-25.00', false],
    ['exactly between two percentages', '800.00', '1.00', '799.00', '0.12', false],
  ])('%s', async (_, amount, spent, remaining, percentUsed, isOver) => {
    await storeBudgets(database.pool, [{ ...budget, amount, spent }]);
    const expected = { ...budget, amount, spent, remaining, percentUsed, isOver };
    expect(await reader.budget(pair)).toEqual(expected);
    const over = await reader.overBudget();
    expect(over).toEqual({ items: isOver ? [expected] : [], next: null });
  });
});

describe('lists', () => {
  /** What the reader must say, computed on its own. */
  function oracle({ amount, spent, ...rest }: BudgetInRows): Budget {
    const Wide = Decimal.clone({ precision: 80, rounding: Decimal.ROUND_HALF_EVEN });
    const percent = amount === null ? null : new Wide(spent).div(amount).mul(100);
    return {
      currency: 'USD',
      notes: null,
      ...rest,
      amount,
      spent,
      remaining: amount === null ? null : new Wide(amount).sub(spent).toFixed(2),
      percentUsed: percent?.isFinite() ? percent.toFixed(2).replace(/^-(0\.00)$/, '$1') : null,
      isOver: amount !== null && new Wide(spent).gt(amount),
    };
  }

  function byKey(a: Budget, b: Budget): number {
    const difference =
      BigInt(a.personId) - BigInt(b.personId) || BigInt(a.occasionId) - BigInt(b.occasionId);
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }

  test('hold every budget once, in key order, whatever the size of their pages', async () => {
    const property = fc.asyncProperty(
      randomBudgets,
      fc.integer({ min: 1, max: 12 }),
      async (budgets, limit) => {
        await storeBudgets(database.pool, budgets);
        const expected = budgets.map(oracle).toSorted(byKey);
        expect(await allPages((page) => reader.overBudget(page), limit)).toEqual(
          expected.filter((budget) => budget.isOver),
        );
        for (const id of new Set(budgets.flatMap((b) => [b.personId, b.occasionId]))) {
          expect(await allPages((page) => reader.budgetsOfPerson(id, page), limit)).toEqual(
            expected.filter((budget) => budget.personId === id),
          );
          expect(await allPages((page) => reader.budgetsOfOccasion(id, page), limit)).toEqual(
            expected.filter((budget) => budget.occasionId === id),
          );
        }
      },
    );
    await fc.assert(property, { numRuns: 60 });
  });

  test('show what stays at most once while others come and go between two pages', async () => {
    const budgets = [1, 2, 3, 4, 5, 6].map((person) => ({
      personId: String(person),
      occasionId: '1',
      amount: '1.00',
      spent: '2.00',
    }));
    await storeBudgets(database.pool, budgets);
    const first = await reader.budgetsOfOccasion(1, { limit: 3 });
    await database.pool.query('delete from person_occasions where person_id in (1, 3, 4)');
    const second = await reader.budgetsOfOccasion(1, { limit: 3, after: first.next });
    expect(first.items.map((budget) => budget.personId)).toEqual(['1', '2', '3']);
    expect(second.items.map((budget) => budget.personId)).toEqual(['5', '6']);
  });

  test('have 100 budgets a page unless asked for others, and 1,000 at most', async () => {
    const budgets = Array.from({ length: 1_001 }, (_, place) => ({
      personId: String(place + 1),
      occasionId: '7',
      amount: '0.00',
      spent: '0.01',
    }));
    await storeBudgets(database.pool, budgets);
    expect((await reader.budgetsOfOccasion(7)).items).toHaveLength(100);
    expect((await reader.overBudget({ limit: 1_000 })).items).toHaveLength(1_000);
  });
});

describe('a question that makes no sense is refused before it is asked', () => {
  const idExpected = 'expected an id: a whole number from 1 to 9223372036854775807, got ';
  const limitExpected = 'limit: expected a whole number from 1 to 1000, got ';
  const cursorExpected = 'after: expected the next of an earlier page of this very list, got ';
  const offline = new BudgetReader({
    query() {
      throw new Error('asked the database');
    },
  });
  const cursor = (text: string): string => Buffer.from(text).toString('base64url');

  test.each<[id: unknown, shown: string]>([
    [0, '0'],
    [-1, '-1'],
    [1.5, '1.5'],
    [Number.NaN, 'NaN'],
    [2 ** 53, '9007199254740992'], // may be another number, rounded
    [2n ** 63n, '9223372036854775808'],
    ['9223372036854775808', '"9223372036854775808"'],
    ['', '""'],
    ['007', '"007"'],
    [' 7', '" 7"'],
    ['1e3', '"1e3"'],
    ["1'; drop table persons; --", `"1'; drop table persons; --"`],
    [null, 'null'],
    [undefined, 'undefined'],
    [['7'], '7'],
  ])('the id $1', async (id, shown) => {
    const given = id as string;
    const refusal = (field: string) => ({
      code: 'BUDGET_QUERY_INVALID',
      message: `${field}: ${idExpected}${shown}`,
    });
    await expect(offline.budgetsOfPerson(given)).rejects.toMatchObject(refusal('personId'));
    await expect(offline.budgetsOfOccasion(given)).rejects.toMatchObject(refusal('occasionId'));
    await expect(offline.budget({ personId: given, occasionId: '1' })).rejects.toMatchObject(
      refusal('personId'),
    );
    await expect(offline.budget({ personId: '1', occasionId: given })).rejects.toMatchObject(
      refusal('occasionId'),
    );
  });

  test.each<[limit: unknown, shown: string]>([
    [0, '0'],
    [1_001, '1001'],
    [2.5, '2.5'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    ['10', '"10"'],
    [null, 'null'],
  ])('the limit $1', async (limit, shown) => {
    const refusal = { code: 'BUDGET_QUERY_INVALID', message: limitExpected + shown };
    const page = { limit: limit as number };
    await expect(offline.budgetsOfPerson(1, page)).rejects.toMatchObject(refusal);
    await expect(offline.budgetsOfOccasion(1, page)).rejects.toMatchObject(refusal);
    await expect(offline.overBudget(page)).rejects.toMatchObject(refusal);
  });

  test.each<[string, unknown]>([
    ['no cursor at all', 'hello'],
    ['empty', ''],
    ['of another person', cursor('person 2/2/5')],
    ['of another list', cursor('occasion 1/1/5')],
    ['of no pair', cursor('person 1/1')],
    ['of more than a pair', cursor('person 1/1/5/6')],
    ['of no ids', cursor('person 1/a/b')],
    ['beyond bigint', cursor('person 1/1/9223372036854775808')],
    ['with rubbish that base64 ignores', `${cursor('person 1/1/5')}!`],
    ['no text', 5],
  ])('a cursor that is %s', async (_, after) => {
    const shown = typeof after === 'string' ? JSON.stringify(after) : String(after);
    await expect(offline.budgetsOfPerson(1, { after: after as string })).rejects.toMatchObject({
      code: 'BUDGET_QUERY_INVALID',
      message: cursorExpected + shown,
    });
  });
});
