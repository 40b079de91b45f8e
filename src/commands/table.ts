import { stringify } from 'csv-stringify/sync';
import stringWidth from 'string-width';

export const FORMATS = ['table', 'csv', 'json'] as const;
export type Format = (typeof FORMATS)[number];

export interface Column<Row> {
  readonly name: string;
  readonly value: (row: Row) => string | number | boolean | null;
  readonly align?: 'right';
}

/**
 * Writes rows as text, a block of lines per chunk and without a line break at its end, so that
 * many rows need no more memory than few.
 */
export function renderRows<Row>(
  format: Format,
  columns: readonly Column<Row>[],
  chunks: AsyncIterable<readonly Row[]>,
): AsyncGenerator<string, void, undefined> {
  return RENDERERS[format](columns, chunks);
}

const RENDERERS = { table: renderTable, csv: renderCsv, json: renderJson };

/**
 * Columns are as wide as their widest cell so far: a later chunk may widen them, but no cell is
 * ever cut, and the first chunk need not wait for the last.
 */
async function* renderTable<Row>(
  columns: readonly Column<Row>[],
  chunks: AsyncIterable<readonly Row[]>,
): AsyncGenerator<string, void, undefined> {
  const headers = columns.map((column) => column.name.replaceAll('_', ' '));
  const widths = headers.map((header) => stringWidth(header));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, place) => pad(cell, widths[place]!, columns[place]!.align))
      .join('  ')
      .trimEnd();
  let isFirst = true;
  for await (const rows of chunks) {
    const cells = rows.map((row) => columns.map((column) => toCell(column.value(row))));
    for (const [place, width] of widths.entries()) {
      widths[place] = cells.reduce((most, row) => Math.max(most, stringWidth(row[place]!)), width);
    }
    const head = isFirst
      ? [line(headers), widths.map((width) => '─'.repeat(width)).join('  ')]
      : [];
    isFirst = false;
    yield [...head, ...cells.map(line)].join('\n');
  }
}

function toCell(value: string | number | boolean | null): string {
  if (value === null) return '–';
  if (typeof value === 'number') return String(value);
  return typeof value === 'boolean' ? (value ? 'yes' : '') : printable(value);
}

/** A name could hold what moves the cursor or breaks the line of a terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ');
}

function pad(cell: string, width: number, align: 'right' | undefined): string {
  const space = ' '.repeat(width - stringWidth(cell));
  return align === 'right' ? space + cell : cell + space;
}

/** RFC 4180, but for lines that end as on Unix. Null is an empty field. */
async function* renderCsv<Row>(
  columns: readonly Column<Row>[],
  chunks: AsyncIterable<readonly Row[]>,
): AsyncGenerator<string, void, undefined> {
  const options = { eof: false };
  yield stringify([columns.map((column) => column.name)], options);
  for await (const rows of chunks) {
    const records = rows.map((row) => columns.map((column) => column.value(row)?.toString() ?? ''));
    yield stringify(records, options);
  }
}

/** One array, an object to a line. A line is ended by what follows it: a comma or nothing. */
async function* renderJson<Row>(
  columns: readonly Column<Row>[],
  chunks: AsyncIterable<readonly Row[]>,
): AsyncGenerator<string, void, undefined> {
  yield '[';
  let held: string | undefined;
  for await (const rows of chunks) {
    const lines = rows.map((row) => JSON.stringify(toObject(columns, row)));
    if (held !== undefined) lines.unshift(held);
    held = lines.pop();
    if (lines.length > 0) yield lines.map((line) => `${line},`).join('\n');
  }
  yield held === undefined ? ']' : `${held}\n]`;
}

function toObject<Row>(columns: readonly Column<Row>[], row: Row): Record<string, unknown> {
  return Object.fromEntries(columns.map((column) => [column.name, column.value(row)]));
}
