import type pg from 'pg';
import type { Id } from '../events/contract.ts';
import type { Queryable } from '../queryable.ts';
import { type Budget, BUDGET_COLUMNS, toBudget } from './budget.ts';

/** A budget with the names that people know it by. */
export interface NamedBudget extends Budget {
  readonly person: string;
  readonly occasion: string;
}

export interface NamedBudgetFilter {
  /** All persons unless given. */
  readonly personIds?: readonly Id[];
  /** All occasions unless given. */
  readonly occasionIds?: readonly Id[];
  readonly onlyOver?: boolean;
}

const CHUNK_MAX = 1_000;

/**
 * Reads budgets with their names, sorted by the names as text (by code point, whatever the
 * language of the database), a chunk at a time.
 *
 * No index has that order, so PostgreSQL sorts, spilling to disk where it must. The cursor is
 * WITH HOLD: its rows are of one moment, and once they are gathered no snapshot stays open. With
 * an ordinary cursor, somebody who reads a page of output over coffee would keep every dead mark
 * in the way of catch-up.
 */
export async function* readNamedBudgets(
  pool: pg.Pool,
  filter: NamedBudgetFilter = {},
): AsyncGenerator<NamedBudget[], void, undefined> {
  const client = await pool.connect();
  let broken: Error | undefined;
  // A connection may be lost between two chunks, when no query is there to fail of it.
  const onError = (error: Error): void => void (broken = error);
  client.on('error', onError);
  try {
    await client.query(...declareCursor(filter));
    let isLast = false;
    while (!isLast) {
      const { rows } = await client.query(`fetch ${CHUNK_MAX} from named_budgets`);
      isLast = rows.length < CHUNK_MAX;
      if (rows.length > 0) yield rows.map(toNamedBudget);
    }
  } catch (error) {
    broken ??= error as Error;
    throw error;
  } finally {
    if (broken === undefined) await client.query('close named_budgets').catch(onError);
    client.off('error', onError);
    // With the connection of an error goes its cursor.
    client.release(broken);
  }
}

function declareCursor(filter: NamedBudgetFilter): [text: string, values: unknown[]] {
  const values: unknown[] = [];
  const conditions = ['true'];
  if (filter.personIds) {
    conditions.push(`b.person_id = any ($${values.push(filter.personIds)}::bigint[])`);
  }
  if (filter.occasionIds) {
    conditions.push(`b.occasion_id = any ($${values.push(filter.occasionIds)}::bigint[])`);
  }
  if (filter.onlyOver) conditions.push('b.budget_spent > b.budget_amount');
  const text = `
    declare named_budgets no scroll cursor with hold for
     select ${BUDGET_COLUMNS}, coalesce(p.name, '') as person, coalesce(o.name, '') as occasion
       from person_occasions b
       join persons p on p.id = b.person_id
       join occasions o on o.id = b.occasion_id
      where ${conditions.join(' and ')}
      order by p.name collate "C", p.id, o.name collate "C", o.id`;
  return [text, values];
}

function toNamedBudget(row: Record<string, unknown>): NamedBudget {
  const { person, occasion } = row as { person: string; occasion: string };
  return { person, occasion, ...toBudget(row) };
}

/**
 * Finds whom a user means by a name, or by an id. Names are not unique, and a name may look like
 * an id: all that fit are found.
 */
export async function findByNameOrId(
  db: Queryable,
  table: 'persons' | 'occasions',
  nameOrId: string,
): Promise<Id[]> {
  const { rows } = await db.query(
    `select id::text from ${table} where name = $1 or id::text = $1 order by ${table}.id`,
    [nameOrId],
  );
  return rows.map((row) => row.id as Id);
}

const SUGGESTIONS_MAX = 3;

/** Names that begin like this one, upper and lower case taken for the same. */
export async function suggestNames(
  db: Queryable,
  table: 'persons' | 'occasions',
  name: string,
): Promise<string[]> {
  const { rows } = await db.query(
    `select distinct name from ${table} where starts_with(lower(name), lower($1))
      order by name limit ${SUGGESTIONS_MAX}`,
    [name],
  );
  return rows.map((row) => row.name as string);
}
