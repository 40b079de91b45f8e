import type pg from 'pg';
import type { Readable } from 'node:stream';
import type { Pair } from '../events/contract.ts';
import { type BadLine, type GiftLine, isBad, readGiftLines } from './lines.ts';
import {
  conflictingBudgets,
  createImportTable,
  gatherLines,
  type Imported,
  importedPairs,
  storeLines,
} from './store.ts';

/** Lines of the file that cannot be imported; nothing was stored. */
export class BadLinesError extends Error {
  readonly code = 'BAD_LINES';
  override readonly name = 'BadLinesError';
  /** The first hundred of them. */
  readonly shown: readonly BadLine[];
  readonly count: number;

  constructor(shown: readonly BadLine[], count: number) {
    super(`${count} bad ${count === 1 ? 'line' : 'lines'}: nothing was imported`);
    this.shown = shown;
    this.count = count;
  }
}

const LINES_PER_CHUNK = 1_000;
const BAD_LINES_SHOWN_MAX = 100;

/**
 * Imports a gift list in one transaction, all or nothing, holding no more than a chunk of it in
 * memory. Every line is read before anything is decided, so that all bad ones are told at once.
 *
 * @returns what was made, and the pairs whose totals changed.
 * @throws {BadLinesError} that names the bad lines; {GiftListInvalidError} for a bad header or CSV.
 */
export async function importGiftList(
  pool: pg.Pool,
  input: Readable,
  onLine: (line: number) => void = () => {},
): Promise<{ imported: Imported; pairs: Pair[] }> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    await createImportTable(client);
    await gatherAll(client, input, onLine);
    const imported = await storeLines(client);
    const pairs = await importedPairs(client);
    await client.query('commit');
    return { imported, pairs };
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

async function gatherAll(
  client: pg.PoolClient,
  input: Readable,
  onLine: (line: number) => void,
): Promise<void> {
  const bad: BadLine[] = [];
  let badCount = 0;
  let chunk: GiftLine[] = [];
  for await (const line of readGiftLines(input)) {
    onLine(line.line);
    if (isBad(line)) {
      badCount += 1;
      if (bad.length < BAD_LINES_SHOWN_MAX) bad.push(line);
    } else if (chunk.push(line) === LINES_PER_CHUNK) {
      await gatherLines(client, chunk);
      chunk = [];
    }
  }
  if (chunk.length > 0) await gatherLines(client, chunk);
  const { conflicts, count } = await conflictingBudgets(client, BAD_LINES_SHOWN_MAX);
  for (const { line, firstLine, person, occasion } of conflicts) {
    bad.push({
      line,
      reason: `budget: another one than in line ${firstLine} for ${person}, ${occasion}`,
    });
  }
  badCount += count;
  if (badCount > 0) {
    const shown = bad.toSorted((a, b) => a.line - b.line).slice(0, BAD_LINES_SHOWN_MAX);
    throw new BadLinesError(shown, badCount);
  }
}
