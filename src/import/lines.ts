import { CsvError, type CsvErrorCode, parse, type Parser } from 'csv-parse';
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
const EXPECTED_HEADER = 'expected the header person,occasion,gift,amount[,budget]';

/** Beyond it a quote was most likely never closed. */
const RECORD_CHARACTERS_MAX = 1_000_000;

/**
 * Reads a gift list (CSV with the header person,occasion,gift,amount[,budget]) line by line. What
 * follows a quote that is out of place cannot be read: it is told as the last bad line.
 *
 * @throws {GiftListInvalidError} where the header is not right.
 */
export async function* readGiftLines(input: Readable): AsyncGenerator<GiftLine | BadLine> {
  let columns: string[] | undefined;
  const parsed: ParsedRecord[] = [];
  const parser = parse({
    bom: true,
    columns: (header: readonly string[]) => (columns = checkHeader(header)),
    info: true,
    raw: true,
    skip_empty_lines: true,
    relax_column_count: true,
    max_record_size: RECORD_CHARACTERS_MAX,
    // As a stream the parser would drop, at an error, the good records before it.
    on_record: (record: ParsedRecord) => void parsed.push(record),
  });
  parser.on('error', () => {}); // Told to the callback of the write, too.
  const lines = new LineNumbers();
  for await (const chunk of withEnd(input)) {
    const error = await give(parser, chunk);
    for (const { record, info, raw } of parsed.splice(0)) {
      const line = lines.take(raw, info.empty_lines);
      if (info.error) yield { line, reason: describeCount(info.error, columns!) };
      else yield understand(line, record);
    }
    if (error) {
      if (!(error instanceof CsvError)) throw error;
      yield { line: lines.next(parser.info.empty_lines), reason: describeCsvError(error) };
      return;
    }
  }
  if (!columns) throw new GiftListInvalidError(`the file is empty: ${EXPECTED_HEADER}`);
}

async function* withEnd(input: Readable): AsyncGenerator<Buffer | null> {
  yield* input as AsyncIterable<Buffer>;
  yield null;
}

/** Has the parser take a chunk, null for the end; @returns its error. */
async function give(parser: Parser, chunk: Buffer | null): Promise<Error | null | undefined> {
  return await new Promise((resolve) => {
    if (chunk === null) parser.end(resolve as () => void);
    else parser.write(chunk, resolve);
  });
}

export function isBad(line: GiftLine | BadLine): line is BadLine {
  return 'reason' in line;
}

interface ParsedRecord {
  readonly record: Readonly<Record<string, string | undefined>>;
  readonly info: { readonly empty_lines: number; readonly error?: CsvError };
  readonly raw: string;
}

/**
 * Counts the lines of the file, the header being line 1. The parser's own count takes a CRLF
 * within quotes for two lines.
 */
class LineNumbers {
  #lastLine = 1;
  #emptyLines = 0;

  /** Where the record begins that comes next, given how many empty lines there were so far. */
  next(emptyLines: number): number {
    return this.#lastLine + 1 + (emptyLines - this.#emptyLines);
  }

  /** The same, and passes over it. */
  take(raw: string, emptyLines: number): number {
    const line = this.next(emptyLines);
    const breaksWithin = raw.replace(/^[\r\n]+|[\r\n]+$/g, '').match(/\r\n|\r|\n/g) ?? [];
    this.#lastLine = line + breaksWithin.length;
    this.#emptyLines = emptyLines;
    return line;
  }
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
      `header: ${problems.join(', ')}; ${EXPECTED_HEADER}, with commas between`,
    );
  }
  return names;
}

function understand(line: number, record: ParsedRecord['record']): GiftLine | BadLine {
  const problems: string[] = [];
  const text = (field: string): string => {
    const value = record[field]?.trim() ?? '';
    if (value.includes('\0')) problems.push(`${field}: has a NUL character`);
    // What decoding puts in the place of bytes that are no UTF-8.
    if (value.includes('\uFFFD')) problems.push(`${field}: ${JSON.stringify(value)} is not UTF-8`);
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

function describeCount(error: CsvError, columns: readonly string[]): string {
  const { record } = error as CsvError & { readonly record: readonly string[] };
  const fields = `${record.length} ${record.length === 1 ? 'field' : 'fields'}`;
  return `has ${fields}, expected ${columns.length}: ${columns.join(',')}`;
}

function describeCsvError({ code, message }: CsvError): string {
  return `${CSV_ERRORS[code] ?? message}; what follows was not read`;
}

const CSV_ERRORS: Partial<Record<CsvErrorCode, string>> = {
  INVALID_OPENING_QUOTE:
    'a quote in a field without quotes around it: put them around it, and write the inner one twice',
  CSV_INVALID_CLOSING_QUOTE: 'a quote within a quoted field: write it twice',
  CSV_QUOTE_NOT_CLOSED: 'a quote is opened and never closed',
  CSV_MAX_RECORD_SIZE: `more than ${RECORD_CHARACTERS_MAX} characters: maybe a quote is never closed`,
};
