import { type Id, type Pair } from '../events/contract.ts';

/** An id as callers have it: the number, or the string of one that a number cannot hold. */
export type IdInput = string | number | bigint;

export interface PageRequest {
  /** The most budgets of this page, 1 to 1,000; 100 unless given. */
  readonly limit?: number;
  /** The `next` of the page before; the first page unless given. */
  readonly after?: string | null;
}

export interface Page<T> {
  readonly items: readonly T[];
  /** What to ask for the next page with; null on the last one. */
  readonly next: string | null;
}

/** A question to the budgets that makes no sense; the message names the field and its value. */
export class BudgetQueryError extends Error {
  readonly code = 'BUDGET_QUERY_INVALID';
  override readonly name = 'BudgetQueryError';

  static expected(field: string, expected: string, value: unknown): BudgetQueryError {
    return new BudgetQueryError(`${field}: expected ${expected}, got ${show(value)}`);
  }
}

const ID_MIN = -(2n ** 63n);
const ID_MAX = 2n ** 63n - 1n;

export function parseId(field: string, value: IdInput): Id {
  const isExact = typeof value === 'number' ? Number.isSafeInteger(value) : true;
  const text = ['string', 'number', 'bigint'].includes(typeof value) ? String(value) : '';
  if (isExact && /^[1-9][0-9]{0,18}$/.test(text) && BigInt(text) <= ID_MAX) return text;
  throw BudgetQueryError.expected(field, `an id: a whole number from 1 to ${ID_MAX}`, value);
}

const LIMIT_DEFAULT = 100;
const LIMIT_MAX = 1_000;

export function parseLimit(limit: number | undefined): number {
  if (limit === undefined) return LIMIT_DEFAULT;
  if (Number.isInteger(limit) && limit >= 1 && limit <= LIMIT_MAX) return limit;
  throw BudgetQueryError.expected('limit', `a whole number from 1 to ${LIMIT_MAX}`, limit);
}

/** The key from which a list starts: before every id there can be. */
const BEFORE_ALL: Pair = { personId: String(ID_MIN), occasionId: String(ID_MIN) };

/**
 * A cursor names its list and the last pair of the page, so that the cursor of one list is not
 * silently taken for a place in another.
 */
export function writeCursor(list: string, last: Pair): string {
  return Buffer.from(`${list}/${last.personId}/${last.occasionId}`).toString('base64url');
}

export function parseCursor(list: string, cursor: string | null | undefined): Pair {
  if (cursor === undefined || cursor === null) return BEFORE_ALL;
  const text = typeof cursor === 'string' ? Buffer.from(cursor, 'base64url').toString() : '';
  const [personId = '', occasionId = ''] = text.slice(list.length + 1).split('/');
  const pair = { personId, occasionId };
  // Written again it must be the same: Buffer drops what is no base64 without a word.
  if (isKey(personId) && isKey(occasionId) && writeCursor(list, pair) === cursor) return pair;
  throw BudgetQueryError.expected('after', 'the next of an earlier page of this very list', cursor);
}

function isKey(text: string): boolean {
  return /^-?\d{1,19}$/.test(text) && BigInt(text) >= ID_MIN && BigInt(text) <= ID_MAX;
}

const VALUE_SHOWN_MAX = 80;

function show(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > VALUE_SHOWN_MAX ? `${text.slice(0, VALUE_SHOWN_MAX)}…` : text;
}
