import { Decimal } from 'decimal.js';
import fc from 'fast-check';
import type { Queryable } from '../../src/database.ts';

export interface BudgetInRows {
  readonly personId: string;
  readonly occasionId: string;
  readonly amount: string | null;
  readonly spent: string;
  readonly currency?: string;
  readonly notes?: string | null;
}

/** Replaces all persons, occasions and budgets by these. */
export async function storeBudgets(db: Queryable, budgets: readonly BudgetInRows[]): Promise<void> {
  await db.query('truncate persons, occasions, gifts cascade');
  const columns = <K extends keyof BudgetInRows>(key: K) => budgets.map((budget) => budget[key]);
  for (const [table, ids] of [
    ['persons', columns('personId')],
    ['occasions', columns('occasionId')],
  ] as const) {
    await db.query(
      `insert into ${table} (id, name) select distinct id, 'n' || id from unnest($1::bigint[]) as id`,
      [ids],
    );
  }
  await db.query(
    `insert into person_occasions
       (person_id, occasion_id, budget_amount, budget_spent, budget_currency, budget_notes)
     select person_id, occasion_id, amount, spent, coalesce(currency, 'USD'), notes
       from unnest($1::bigint[], $2::bigint[], $3::numeric[], $4::numeric[], $5::text[], $6::text[])
            as b (person_id, occasion_id, amount, spent, currency, notes)`,
    (['personId', 'occasionId', 'amount', 'spent', 'currency', 'notes'] as const).map(columns),
  );
}

const cents = (min: number, max: number) =>
  fc.integer({ min, max }).map((amount) => new Decimal(amount).dividedBy(100).toFixed(2));

const idText = fc
  .oneof(fc.bigInt({ min: 1n, max: 12n }), fc.bigInt({ min: 2n ** 63n - 4n, max: 2n ** 63n - 1n }))
  .map(String);

const randomBudget = fc.record({
  personId: idText,
  occasionId: idText,
  amount: fc.option(fc.oneof(cents(0, 300), cents(0, 9_999_999_999))),
  spent: fc.oneof(cents(-300, 300), cents(-9_999_999_999, 9_999_999_999)),
  currency: fc.constantFrom('USD', 'EUR', 'JPY'),
  notes: fc.option(fc.constantFrom('', 'a "note"', 'two\nlines')),
});

/** Budgets of different pairs, of every kind that can be stored. */
export const randomBudgets = fc.uniqueArray(randomBudget, {
  selector: ({ personId, occasionId }) => `${personId}-${occasionId}`,
  maxLength: 40,
});
