import type pg from 'pg';
import { fill, withoutMarks } from '../../bench/data.ts';
import { type BenchDatabase, withDatabase } from '../../bench/servers.ts';
import { type Database, openDatabase } from '../../src/database.ts';

export const BUDGET_INDEX = 'idx_person_occasion_budget';
export const OCCASION_INDEX = 'idx_person_occasion_occasion';

/** The same budgets in a database of their own, with some of the indexes. */
export interface Side {
  readonly name: string;
  readonly indexes: readonly string[];
  readonly pool: pg.Pool;
}

const SIDES = [
  { name: 'the primary key alone', indexes: [] },
  { name: `\`${BUDGET_INDEX}\``, indexes: [BUDGET_INDEX] },
  { name: `\`${OCCASION_INDEX}\``, indexes: [OCCASION_INDEX] },
  { name: 'both', indexes: [BUDGET_INDEX, OCCASION_INDEX] },
] as const;

/**
 * Runs the work on copies of one database, page for page the same but for the indexes they lack.
 *
 * @param pairs of 50 occasions: an occasion of a million has 20,000 budgets, a person 50.
 */
export async function withSides<T>(
  server: BenchDatabase,
  pairs: number,
  work: (sides: readonly Side[]) => Promise<T>,
): Promise<T> {
  const original = await withDatabase(server.url, async ({ pool, url }) => {
    await fill(pool, { pairs, assignmentsPerPair: 1, personsPerOccasion: pairs / 50 });
    await withoutMarks(pool, [
      'update person_occasions set budget_amount = null where random() < 0.5',
    ]);
    // Written anew: what the update left behind would be in the way of one side more than of another.
    await pool.query('vacuum full person_occasions');
    await pool.query('vacuum (analyze) person_occasions');
    await mustBeAllVisible(pool);
    return url;
  });
  const opened: Database[] = [];
  try {
    const sides: Side[] = [];
    for (const [place, side] of SIDES.entries()) {
      const url = new URL(original);
      await server.pool.query(
        `create database index_side_${place} template ${url.pathname.slice(1)}`,
      );
      url.pathname = `/index_side_${place}`;
      const database = await openDatabase(url.href, { poolMax: 2 });
      opened.push(database);
      const { pool } = database;
      await pool.query('create extension pg_walinspect');
      for (const index of [BUDGET_INDEX, OCCASION_INDEX]) {
        const isWanted = side.indexes.some((name) => name === index);
        if (!isWanted) await pool.query(`drop index ${index}`);
      }
      sides.push({ ...side, pool });
    }
    return await work(sides);
  } finally {
    for (const database of opened) await database.close();
  }
}

/** Else no index would be read without the table, as one is that was vacuumed in time. */
async function mustBeAllVisible(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ relpages: number; relallvisible: number }>(
    `select relpages, relallvisible from pg_class where relname = 'person_occasions'`,
  );
  const { relpages, relallvisible } = rows[0]!;
  if (relallvisible < relpages)
    throw new Error(`${relallvisible} of ${relpages} pages are visible`);
}
