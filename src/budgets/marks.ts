/**
 * The marks for everything, of which there are none or few, looked up once for a whole query:
 * begins a query that uses what stands below.
 */
export const WITH_EVERYTHING = `
  with everything as materialized (
    select person_id, occasion_id, marked_at from pending_recalculations where everything
  )`;

/** Whether the mark for everything `e` stands for the budget `b`: its key is less, or it has none. */
export const STANDS_FOR_BUDGET = `(
  e.person_id is null or e.occasion_id is null
  or (e.person_id, e.occasion_id) < (b.person_id, b.occasion_id))`;

export const IS_PENDING_BY_EVERYTHING = `
  exists (select from everything e where ${STANDS_FOR_BUDGET})`;

/**
 * Whether a mark is pending for the budget `b`. OFFSET 0 changes no result: without it PostgreSQL may
 * prefer to read the whole table of marks into a hash for a page of budgets, and with it each budget
 * is one probe of `idx_pending_recalculation_pair`, however many marks there are.
 */
export const IS_PENDING = `(
  exists (
    select from pending_recalculations m
     where m.person_id = b.person_id and m.occasion_id = b.occasion_id and not m.everything
    offset 0
  ) or ${IS_PENDING_BY_EVERYTHING})`;
