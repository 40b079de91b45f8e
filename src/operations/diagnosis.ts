import type { ExplainedBudget } from '../recalculation/explain-budget.ts';
import type { RowHold, RowHolder } from './row-holders.ts';

/**
 * - `right`: stored is the sum, and nothing is pending;
 * - `pending`: a mark is there, so catch-up is about to recalculate it;
 * - `failed`: the sum cannot be stored or computed, and nothing will try it again by itself;
 * - `wrong`: drift, stored is not the sum and nothing will put it right by itself.
 */
export type BudgetState = 'right' | 'pending' | 'failed' | 'wrong';

export function stateOf(budget: ExplainedBudget): BudgetState {
  if (pendingSeconds(budget) !== null) return 'pending';
  if (budget.stored === budget.right) return 'right';
  return budget.failure === null && budget.fits ? 'wrong' : 'failed';
}

/** What is the case and what to do about it, in plain sentences. */
export function diagnose(budget: ExplainedBudget, hold: RowHold): string[] {
  return [
    SENTENCES[stateOf(budget)](budget),
    ...sayLeftOver(budget),
    ...sayOtherRule(budget),
    ...hold.holders.map(sayHolder),
    ...(hold.state === 'held' && hold.holders.length === 0
      ? ['The row is held, but by whom could not be found: ask again.']
      : []),
  ];
}

const SENTENCES: Record<BudgetState, (budget: ExplainedBudget) => string> = {
  right: () => 'The stored total is right and nothing is pending.',
  pending: (budget) => `${sayPending(budget)} ${IF_THIS_STAYS}`,
  failed: (budget) =>
    budget.failure !== null && budget.fits
      ? 'The sum could not be stored when it was tried, but would fit now: ' +
        '"gift-budgets failures --retry" stores it.'
      : `${sayWhyNot(budget)}, so the stored total stays ${budget.stored} until the assignments ` +
        'change; then it is tried again. "gift-budgets failures --retry" tries it now.',
  wrong: () =>
    'Stored and right differ and nothing is pending: this is drift, made behind the triggers ' +
    '(by a restore, say); "gift-budgets repair" repairs it.',
};

const IF_THIS_STAYS = 'If this stays, is a worker running? "gift-budgets start" runs one.';

function sayPending(budget: ExplainedBudget): string {
  const pending = `A change is pending for ${pendingSeconds(budget)!.toFixed(1)} s`;
  if (!budget.fits) return `${pending}, but cannot be stored. ${sayWhyNot(budget)}.`;
  return budget.stored === budget.right
    ? `${pending}, and the stored total is right as it is: catch-up will see that.`
    : `${pending}: catch-up will store ${budget.right}.`;
}

function sayWhyNot({ right, rightError }: ExplainedBudget): string {
  return right === null
    ? `The sum cannot be computed (${rightError})`
    : `The sum ${right} does not fit (from -99999999.99 to 99999999.99 can be stored)`;
}

function sayLeftOver({ failure, stored, right, ...rest }: ExplainedBudget): string[] {
  if (failure === null || stored !== right || rest.marks > 0) return [];
  return [
    'It is still listed as a failure: "gift-budgets failures --retry" takes it off the list.',
  ];
}

/** A replaced view may count something else than the assignments as they stand. */
function sayOtherRule(budget: ExplainedBudget): string[] {
  const { contributions, right } = budget;
  const isSame = contributions === budget.assignmentsWithAmount && right === budget.assignmentsSum;
  if (isSame || right === null) return [];
  return [
    `What counts differs from the assignments: ${count(contributions!, 'contribution')} of ` +
      `${right} in all, so the view budget_contributions was replaced by a rule of your own.`,
  ];
}

function sayHolder(holder: RowHolder): string {
  const { who, howToEnd } = describeHolder(holder);
  return `The row is held by ${who}: nothing can be stored until it ends; ${howToEnd} ends it.`;
}

/** Who it is, in words, and the SQL that ends it. */
export function describeHolder(holder: RowHolder): { who: string; howToEnd: string } {
  if (holder.kind === 'prepared') {
    const gid = `'${holder.gid.replaceAll("'", "''")}'`;
    return {
      who: `the prepared transaction ${gid} for ${clock(holder.transactionSeconds)}`,
      howToEnd: `COMMIT PREPARED ${gid} or ROLLBACK PREPARED ${gid}`,
    };
  }
  const { pid, applicationName, state, transactionSeconds } = holder;
  const age =
    transactionSeconds === null ? '' : `, its transaction ${clock(transactionSeconds)} old`;
  return {
    who:
      `pid ${pid} (${applicationName || 'no application name'}, ` +
      `${state ?? 'a session of another role'}${age})`,
    howToEnd: `SELECT pg_terminate_backend(${pid})`,
  };
}

/** The age of the oldest mark that has it recalculated; null where there is none. */
export function pendingSeconds(budget: ExplainedBudget): number | null {
  const { oldestMarkSeconds: own, everythingMarkSeconds: everything } = budget;
  return own === null && everything === null ? null : Math.max(own ?? 0, everything ?? 0);
}

/** A length of time as 00:04:10. */
function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 3_600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.map((part) => String(part).padStart(2, '0')).join(':');
}

export function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}
