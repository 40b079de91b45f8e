import { Decimal } from 'decimal.js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  compare,
  isMoney,
  MoneyInvalidError,
  parseMoney,
  percentage,
  subtract,
  sum,
} from '../src/budgets/money.ts';

const cents = fc.bigInt({ min: -9_999_999_999n, max: 9_999_999_999n });

/** Written without decimal.js and without floating point. */
function toText(amountInCents: bigint): string {
  const digits = (amountInCents < 0n ? -amountInCents : amountInCents).toString().padStart(3, '0');
  return `${amountInCents < 0n ? '-' : ''}${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

describe('arithmetic', () => {
  test('sums and differences are exact to the cent', () => {
    fc.assert(
      fc.property(fc.array(cents), cents, (amounts, amount) => {
        const total = amounts.reduce((whole, part) => whole + part, 0n);
        expect(sum(amounts.map(toText))).toBe(toText(total));
        expect(subtract(toText(total), toText(amount))).toBe(toText(total - amount));
        expect(compare(toText(total), toText(amount))).toBe(
          total < amount ? -1 : total > amount ? 1 : 0,
        );
      }),
    );
  });

  test('0.1 and 0.2 make 0.30', () => {
    expect(sum(['0.10', '0.20'])).toBe('0.30');
    expect(sum([])).toBe('0.00');
  });

  test('a zero has no minus', () => {
    expect(subtract('1.00', '1.00')).toBe('0.00');
    expect(parseMoney('-0.00')).toBe('0.00');
    expect(percentage('-0.01', '99999999.99')).toBe('0.00');
  });
});

describe('percentage', () => {
  test.each([
    ['50.00', '200.00', '25.00'],
    ['0.00', '200.00', '0.00'],
    ['400.00', '300.00', '133.33'], // not capped
    ['-15.00', '200.00', '-7.50'],
    ['99999999.99', '0.01', '999999999900.00'],
    // Half even: what lies exactly between goes to the even digit.
    ['0.01', '800.00', '0.00'], // 0.00125
    ['1.00', '800.00', '0.12'], // 0.125
    ['3.00', '800.00', '0.38'], // 0.375
    ['-1.00', '800.00', '-0.12'],
  ])('%s of %s is %s percent', (part, whole, percent) => {
    expect(percentage(part, whole)).toBe(percent);
  });

  test('of nothing, or of no budget, there is none', () => {
    expect(percentage('10.00', '0.00')).toBeNull();
    expect(percentage('10.00', null)).toBeNull();
  });

  test('is the same in whole numbers', () => {
    fc.assert(
      fc.property(cents, fc.bigInt({ min: 1n, max: 9_999_999_999n }), (part, whole) => {
        expect(percentage(toText(part), toText(whole))).toBe(toText(percentInWhole(part, whole)));
      }),
    );
  });

  function percentInWhole(part: bigint, whole: bigint): bigint {
    const hundredths = (part < 0n ? -part : part) * 10_000n;
    const [quotient, rest] = [hundredths / whole, hundredths % whole];
    const isUp = rest * 2n > whole || (rest * 2n === whole && quotient % 2n === 1n);
    return (quotient + (isUp ? 1n : 0n)) * (part < 0n ? -1n : 1n);
  }
});

describe('parsing', () => {
  test.each([
    ['12.50', '12.50'],
    ['12.5', '12.50'],
    ['12', '12.00'],
    ['-12.50', '-12.50'],
    ['007', '7.00'],
    ['99999999.99', '99999999.99'],
    ['-99999999.99', '-99999999.99'],
  ])('%s is %s', (text, amount) => {
    expect(isMoney(text)).toBe(true);
    expect(parseMoney(text)).toBe(amount);
  });

  test.each([
    ['', 'is empty'],
    ['  ', 'is empty'],
    ['100000000', 'is too large'],
    ['-100000000.00', 'is too large'],
    ['9'.repeat(400), 'is too large'],
    ['12.345', 'has 3 decimal places'],
    ['1.500', 'has 3 decimal places'],
    ['NaN', 'is not a finite number'],
    ['-Infinity', 'is not a finite number'],
    ['1e3', 'is written with an exponent'],
    ['1.5E-2', 'is written with an exponent'],
    ['1,234.50', 'has a separator or a decimal comma'],
    ["1'234.50", 'has a separator or a decimal comma'],
    ['1 234.50', 'has a separator or a decimal comma'],
    ['1_234', 'has a separator or a decimal comma'],
    ['1.234.567', 'has a separator or a decimal comma'],
    ['12,50', 'has a separator or a decimal comma'],
    [' 12.50', 'has a space'],
    ['£12.50', 'is not an amount'],
    ['12.50 USD', 'is not an amount'],
    ['0x10', 'is not an amount'],
    ['.5', 'is not an amount'],
    ['5.', 'is not an amount'],
    ['--5', 'is not an amount'],
    ['+5', 'is not an amount'],
    ['٣', 'is not an amount'],
    ['12.50\n', 'has a space'],
  ])('%j is refused: %s', (text, reason) => {
    expect(isMoney(text)).toBe(false);
    expect(() => parseMoney(text)).toThrow(MoneyInvalidError);
    expect(() => parseMoney(text)).toThrow(reason);
  });

  test('whatever is taken is a number that numeric(10,2) holds, and keeps its value', () => {
    const almost = fc.stringMatching(/^[-+]?[0-9., e]{0,12}$/);
    fc.assert(
      fc.property(fc.oneof(almost, fc.string(), cents.map(toText)), (text) => {
        if (!isMoney(text)) return;
        const amount = new Decimal(text);
        expect(amount.abs().lte('99999999.99')).toBe(true);
        expect(parseMoney(text)).toMatch(/^-?\d{1,8}\.\d\d$/);
        expect(amount.eq(parseMoney(text))).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });
});
