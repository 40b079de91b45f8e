import { Decimal } from 'decimal.js';

/**
 * An amount of money: a decimal string with two places, such as '12.50'. A string, because a
 * JavaScript number cannot hold most amounts exactly.
 */
export type Money = string;

/** numeric(10,2): ten digits, two of them after the point. */
const PLACES_MAX = 2;
const WHOLE_DIGITS_MAX = 8;

/** Enough digits that a quotient of two amounts is rounded once, when it is written. */
const Exact = Decimal.clone({ precision: 60, rounding: Decimal.ROUND_HALF_EVEN });

export function sum(amounts: Iterable<Money>): Money {
  let total = new Exact(0);
  for (const amount of amounts) total = total.plus(amount);
  return write(total);
}

export function subtract(from: Money, amount: Money): Money {
  return write(new Exact(from).minus(amount));
}

/** @returns -1, 0 or 1, as the first is less than, equal to or more than the second. */
export function compare(first: Money, second: Money): -1 | 0 | 1 {
  return new Exact(first).comparedTo(second) as -1 | 0 | 1;
}

/**
 * How many percent of the whole the part is, rounded half even to two places: '133.33'. Never
 * capped, and negative where the part is.
 *
 * @returns null where there is no whole, or nothing of which there could be a percentage.
 */
export function percentage(part: Money, whole: Money | null): string | null {
  if (whole === null || new Exact(whole).isZero()) return null;
  return write(new Exact(part).times(100).dividedBy(whole));
}

/** Text that is not an amount of money; the message shows it and says why. */
export class MoneyInvalidError extends Error {
  readonly code = 'MONEY_INVALID';
  override readonly name = 'MoneyInvalidError';
}

export function isMoney(text: string): boolean {
  return findFault(text) === null;
}

/**
 * Understands an amount as people and programs write it ('12', '12.5', '-12.50').
 *
 * @returns it with two places: '12.50'.
 * @throws {MoneyInvalidError} where a numeric(10,2) could not hold it exactly.
 */
export function parseMoney(text: string): Money {
  const fault = findFault(text);
  if (fault !== null) throw new MoneyInvalidError(`${show(text)} ${fault}`);
  return write(new Exact(text));
}

/**
 * The places are counted as they are written, not as they weigh: '1.500' is refused too, because
 * it may well be one thousand five hundred.
 */
function findFault(text: string): string | null {
  if (text.trim() === '') return 'is empty: expected an amount such as 12.50';
  const match = /^-?(\d+)(?:\.(\d+))?$/.exec(text);
  if (!match) return findFaultOfForm(text);
  const [, whole = '', places = ''] = match;
  if (places.length > PLACES_MAX) {
    return `has ${places.length} decimal places: at most ${PLACES_MAX} can be stored`;
  }
  if (whole.replace(/^0+/, '').length > WHOLE_DIGITS_MAX) {
    return 'is too large: from -99999999.99 to 99999999.99 can be stored';
  }
  return null;
}

function findFaultOfForm(text: string): string {
  if (/^\s|\s$/.test(text)) return 'has a space before or behind it';
  if (/^[+-]?(nan|inf|infinity)$/i.test(text)) return 'is not a finite number';
  if (/^[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d+$/i.test(text)) {
    return 'is written with an exponent: write all its digits, such as 1200.00';
  }
  if (/^[+-]?\d[\d.,'’_\s]*$/.test(text) && /\d[,'’_\s]|\..*\./.test(text)) {
    return 'has a separator or a decimal comma: write digits and one point, such as 1234.50';
  }
  return 'is not an amount: write digits, a point and two more digits, such as 12.50';
}

const VALUE_SHOWN_MAX = 40;

function show(text: string): string {
  const shown = text.length > VALUE_SHOWN_MAX ? `${text.slice(0, VALUE_SHOWN_MAX)}…` : text;
  return JSON.stringify(shown);
}

/** Rounded before it is written, so that no minus stands before a zero. */
function write(amount: Decimal): string {
  return amount.toDecimalPlaces(PLACES_MAX).toFixed(PLACES_MAX);
}
