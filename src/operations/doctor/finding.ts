/**
 * - `ok`: it was looked at, and is as it should be;
 * - `warning`: it works, but something costs, or may cost, what it need not;
 * - `error`: something needs doing: totals may go wrong or come late, or jobs may be lost.
 */
export type Severity = 'ok' | 'warning' | 'error';

/** What a check found, and what to do about it. */
export interface Finding {
  readonly severity: Severity;
  readonly found: string;
  /** What it means; null where all is well. */
  readonly why: string | null;
  /** What to do, in words; null where nothing is to be done, or what to type says it all. */
  readonly todo: string | null;
  /** What to type in psql. */
  readonly sql: readonly string[];
  /** What to type in a shell. */
  readonly shell: readonly string[];
}

/** What is told besides what was found. */
export type Remedy = { readonly why: string } & Partial<Pick<Finding, 'todo' | 'sql' | 'shell'>>;

export function ok(found: string): Finding {
  return { severity: 'ok', found, why: null, todo: null, sql: [], shell: [] };
}

export function warning(found: string, remedy: Remedy): Finding {
  return { severity: 'warning', found, todo: null, sql: [], shell: [], ...remedy };
}

export function error(found: string, remedy: Remedy): Finding {
  return { ...warning(found, remedy), severity: 'error' };
}

/** The problems that were found, or that there are none. */
export function orOk(problems: readonly Finding[], found: string): readonly Finding[] {
  return problems.length > 0 ? problems : [ok(found)];
}

/** Has every total recalculated: for changes that left no mark. */
export const MARK_EVERYTHING = 'insert into pending_recalculations (everything) values (true);';

/** Nobody should queue up behind a statement that waits for a table; it is typed again instead. */
export const DO_NOT_WAIT = `set lock_timeout = '2s';`;
