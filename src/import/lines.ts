import { CsvError, parse } from 'csv-parse';
import type { Readable } from 'node:stream';
import { compare, type Money, MoneyInvalidError, parseMoney } from '../budgets/money.ts';

/** One line of a gift list, understood. */
export interface GiftLine {
  /** The number of the line in the file, the header being line 1. */
  readonly line: number;
  readonly person: string;
  /** Null: not yet for any occasion, so it counts nowhere. */
  readonly occasion: string | null;
  readonly gift: string;
  /** Null: price unknown, counts as nothing. */
  readonly amount: Money | null;
  readonly budget: Money | null;
}

/** A line that cannot be imported, and why. */
export interface BadLine {
  readonly line: number;
  readonly reason: string;
}

/** A file that cannot be read as a gift list at all. */
export class GiftListInvalidError extends Error {
  readonly code = 'GIFT_LIST_INVALID';
  override readonly name = 'GiftListInvalidError';
}

const REQUIRED = ['person', 'occasion', 'gift', 'amount'];
const OPTIONAL = ['budget'];

/**
 * Reads a gift list (CSV with the header person,occasion,gift,amount[,budget]) line by line.
 *
 * @throws {GiftListInvalidError} where the header or the CSV itself is not right.
 */
export async function* readGiftLines(input: Readable): AsyncGenerator<GiftLine | BadLine> {
  const parser = parse({
    bom: true,
    columns: checkHeader,
    info: true,
    skip_empty_lines: true,
    relax_column_count: true,
    max_record_size: 1_000_000,
  });
  input.on('error', (error) => parser.destroy(error)).pipe(parser);
  let startsAt = 2;
  try {
    for await (const { record, info } of parser as AsyncIterable<ParsedRecord>) {
      const line = startsAt;
      startsAt = info.lines + 1;
      yield info.error ? { line, reason: describeCsvError(info.error) } : understand(line, record);
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new GiftListInvalidError(describeCsvError(error));
  }
}

export function isBad(line: GiftLine | BadLine): line is BadLine {
  return 'reason' in line;
}

interface ParsedRecord {
  readonly record: Readonly<Record<string, string | undefined>>;
  readonly info: { readonly lines: number; readonly error?: CsvError };
}

function checkHeader(header: readonly string[]): string[] {
  const names = header.map((name) => name.trim().toLowerCase());
  const missing = REQUIRED.filter((name) => !names.includes(name));
  const unknown = names.filter((name) => !REQUIRED.includes(name) && !OPTIONAL.includes(name));
  const twice = names.filter((name, place) => names.indexOf(name) !== place);
  const problems = [
    ...missing.map((name) => `the column ${name} is missing`),
    ...unknown.map((name) => `the column ${JSON.stringify(name)} is unknown`),
    ...twice.map((name) => `the column ${name} is there twice`),
  ];
  if (problems.length > 0) {
    throw new GiftListInvalidError(
      `line 1: ${problems.join(', ')}; expected the header person,occasion,gift,amount[,budget]`,
    );
  }
  return names;
}

function understand(line: number, record: ParsedRecord['record']): GiftLine | BadLine {
  const problems: string[] = [];
  const text = (field: string): string => {
    const value = record[field]?.trim() ?? '';
    if (value.includes('\0')) problems.push(`${field}: has a NUL character`);
    return value;
  };
  const required = (field: string): string => {
    const value = text(field);
    if (value === '') problems.push(`${field}: is empty`);
    return value;
  };
  const money = (field: string): Money | null => {
    const value = text(field);
    if (value === '') return null;
    try {
      return parseMoney(value);
    } catch (error) {
      if (!(error instanceof MoneyInvalidError)) throw error;
      problems.push(`${field}: ${error.message}`);
      return null;
    }
  };
  const understood: GiftLine = {
    line,
    person: required('person'),
    occasion: text('occasion') || null,
    gift: required('gift'),
    amount: money('amount'),
    budget: money('budget'),
  };
  const { budget, occasion } = understood;
  if (budget !== null && compare(budget, '0') < 0) {
    problems.push(`budget: "${budget}" is negative: 0 or more is expected`);
  }
  if (budget !== null && occasion === null) {
    problems.push(`budget: "${budget}" is for no occasion: name one`);
  }
  return problems.length > 0 ? { line, reason: problems.join('; ') } : understood;
}

function describeCsvError(error: CsvError): string {
  return error.message.replace(/^Invalid /, 'invalid ');
}
