import type { Id } from '../events/contract.ts';
import { compare, type Money, percentage, subtract } from './money.ts';

/** A budget as readers see it: what is planned, what is used, and what follows from both. */
export interface Budget {
  readonly personId: Id;
  readonly occasionId: Id;
  /** What may be spent; null where no budget is set, '0.00' where nothing may be spent. */
  readonly amount: Money | null;
  /** The stored total of the assignments; negative where refunds outweigh the rest. */
  readonly spent: Money;
  /** Amount less spent, negative where more was spent; null where no budget is set. */
  readonly remaining: Money | null;
  /** Spent in percent of the amount: '133.33'; null where the amount is null or 0. */
  readonly percentUsed: string | null;
  /** Whether strictly more was spent than the amount; false where no budget is set. */
  readonly isOver: boolean;
  /** Three capital letters, ISO 4217. */
  readonly currency: string;
  readonly notes: string | null;
}

/** A budget that was read with `pending: true`. */
export interface BudgetWithPending extends Budget {
  /**
   * Whether a change is pending: a mark for this pair or for everything. Where none is, `spent` is
   * right, unless the pair is listed in `recalculation_failures` or was changed behind the triggers.
   */
  readonly isPending: boolean;
}

/** A budget as it comes from a read that was, or was not, asked to tell what is pending. */
export type BudgetToldPending<Told extends boolean> = Told extends true
  ? BudgetWithPending
  : Budget;

/** What a query selects from `person_occasions b` so that `toBudget` understands its rows. */
export const BUDGET_COLUMNS = `
  b.person_id::text, b.occasion_id::text, b.budget_amount::text, b.budget_spent::text,
  b.budget_currency, b.budget_notes`;

interface BudgetRow {
  readonly person_id: Id;
  readonly occasion_id: Id;
  readonly budget_amount: Money | null;
  readonly budget_spent: Money;
  readonly budget_currency: string;
  readonly budget_notes: string | null;
}

/** @param selected a row of a query that selects `BUDGET_COLUMNS`. */
export function toBudget(selected: Record<string, unknown>): Budget {
  const row = selected as unknown as BudgetRow;
  const { budget_amount: amount, budget_spent: spent } = row;
  return {
    personId: row.person_id,
    occasionId: row.occasion_id,
    amount,
    spent,
    remaining: amount === null ? null : subtract(amount, spent),
    percentUsed: percentage(spent, amount),
    isOver: amount !== null && compare(spent, amount) > 0,
    currency: row.budget_currency,
    notes: row.budget_notes,
  };
}
