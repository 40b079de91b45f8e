import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BudgetWithPending } from '../../src/budgets/budget.ts';
import { BudgetReader } from '../../src/budgets/reader.ts';
import type { Pair } from '../../src/events/contract.ts';
import { type BudgetInRows, randomBudgets, storeBudgets } from '../support/random-budgets.ts';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

const seed = Number(process.env.PROPERTY_SEED ?? Date.now() % 1_000_000_000);

let database: TestDatabase;
let reader: BudgetReader;

beforeAll(async () => {
  database = await createTestDatabase();
  reader = new BudgetReader(database.reader.pool);
});
afterAll(async () => {
  await database.close();
});

/** Every budget as a program reads it that knows nothing but the view. */
async function readView(): Promise<Omit<BudgetWithPending, 'notes'>[]> {
  const { rows } = await database.pool.query(
    `select person_id::text as "personId", occasion_id::text as "occasionId", amount, spent, remaining,
            percent_used as "percentUsed", is_over as "isOver", is_pending as "isPending", currency
       from budget_status order by person_id, occasion_id`,
  );
  return rows;
}

async function readAll(budgets: readonly Pair[]): Promise<Omit<BudgetWithPending, 'notes'>[]> {
  const found = await Promise.all(
    budgets.map(async (pair) => await reader.budget(pair, { pending: true })),
  );
  return found
    .map((budget) => {
      const { notes: _, ...rest } = budget!;
      return rest;
    })
    .toSorted(byKey);
}

function byKey(a: Pair, b: Pair): number {
  const difference =
    BigInt(a.personId) - BigInt(b.personId) || BigInt(a.occasionId) - BigInt(b.occasionId);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/** Replaces all marks; a pair of a mark for everything is the key up to which it is done. */
async function mark(marks: readonly Mark[]): Promise<void> {
  await database.pool.query('truncate pending_recalculations');
  await database.pool.query(
    `insert into pending_recalculations (person_id, occasion_id, everything)
     select * from unnest($1::bigint[], $2::bigint[], $3::boolean[])`,
    [
      marks.map(({ pair }) => pair?.personId ?? null),
      marks.map(({ pair }) => pair?.occasionId ?? null),
      marks.map(({ everything }) => everything),
    ],
  );
}

interface Mark {
  readonly everything: boolean;
  readonly pair: Pair | null;
}

describe(`the view budget_status says what the reader says (PROPERTY_SEED=${seed})`, () => {
  it('of budgets and marks of every kind', async () => {
    const someMarks = (budgets: readonly Pair[]): fc.Arbitrary<Mark[]> => {
      const pair = fc.constantFrom(...budgets, { personId: '7', occasionId: '7' });
      const markOf = fc.record({ everything: fc.constant(false), pair });
      const forEverything = fc.record({ everything: fc.constant(true), pair: fc.option(pair) });
      return fc
        .tuple(fc.array(markOf, { maxLength: 5 }), fc.array(forEverything, { maxLength: 2 }))
        .map((marks) => marks.flat());
    };
    const scene = randomBudgets.chain((budgets) =>
      fc.record({ budgets: fc.constant(budgets), marks: someMarks(budgets) }),
    );
    const seen = { pending: 0, fresh: 0, over: 0, without: 0 };
    const property = fc.asyncProperty(scene, async ({ budgets, marks }) => {
      await storeBudgets(database.pool, budgets);
      await mark(marks);
      const view = await readView();
      expect(view).toEqual(await readAll(budgets));
      for (const { isPending, isOver, percentUsed } of view) {
        seen[isPending ? 'pending' : 'fresh'] += 1;
        if (isOver) seen.over += 1;
        if (percentUsed === null) seen.without += 1;
      }
    });
    await fc.assert(property, { seed, numRuns: 60 });
    // Each must come often enough for the comparison to mean something.
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(20);
  });

  it('of every percentage of small amounts, so of all ties too', async () => {
    const amounts = ['0.00', '0.07', '8.00', '16.00', '99.99', '200.00', '1600.00', null];
    const budgets: BudgetInRows[] = amounts.flatMap((amount, at) =>
      Array.from({ length: 401 }, (_, cent) => ({
        personId: String(at + 1),
        occasionId: String(cent + 1),
        amount,
        spent: ((cent - 200) / 100).toFixed(2),
      })),
    );
    await storeBudgets(database.pool, budgets);
    expect(await readView()).toEqual(await readAll(budgets));
    const { rows } = await database.pool.query(
      `select spent, percent_used from budget_status
        where amount = 8 and spent in (-0.03, -0.01, 0.01, 0.03) order by spent`,
    );
    expect(rows.map(({ percent_used }) => percent_used as string)).toEqual([
      '-0.38',
      '-0.12',
      '0.12',
      '0.38',
    ]);
  });

  it('of the least and the most that can be stored', async () => {
    const extremes = ['0.01', '0.03', '99999999.97', '99999999.99'];
    const budgets = extremes.flatMap((amount, person) =>
      extremes
        .flatMap((spent) => [spent, `-${spent}`])
        .map((spent, at) => ({
          personId: String(person + 1),
          occasionId: String(at + 1),
          amount,
          spent,
        })),
    );
    await storeBudgets(database.pool, budgets);
    expect(await readView()).toEqual(await readAll(budgets));
  });
});

it('whoever may read the view needs no right to read what is behind it', async () => {
  const client = await database.pool.connect();
  try {
    await client.query('begin');
    await client.query('create role budget_status_reader');
    await client.query('grant select on budget_status to budget_status_reader');
    await client.query('set local role budget_status_reader');
    await client.query('select * from budget_status');
  } finally {
    await client.query('rollback');
    client.release();
  }
});
