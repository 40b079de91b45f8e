import type { Queryable } from '../database.ts';
import { type Budget, BUDGET_COLUMNS, toBudget } from './budget.ts';
import {
  type IdInput,
  type Page,
  type PageRequest,
  parseCursor,
  parseId,
  parseLimit,
  writeCursor,
} from './page.ts';

export interface BudgetKey {
  readonly personId: IdInput;
  readonly occasionId: IdInput;
}

/**
 * Reads budgets and their stored totals. Every method is one query on an index; a list comes in
 * pages, each of which starts where the one before ended, so that a late page costs what the
 * first one does. A list that changes between two pages shows each budget at most once.
 *
 * @throws {BudgetQueryError} from each method, where an id, a limit or a cursor makes no sense.
 */
export class BudgetReader {
  readonly #db: Queryable;

  /** @param db a pg.Pool, or a client of one. */
  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Primary key, or another index of the same two columns. */
  async budget(pair: BudgetKey): Promise<Budget | null> {
    const { rows } = await this.#db.query(
      `select ${BUDGET_COLUMNS}
         from person_occasions b
        where b.person_id = $1::bigint and b.occasion_id = $2::bigint`,
      [parseId('personId', pair.personId), parseId('occasionId', pair.occasionId)],
    );
    return rows[0] === undefined ? null : toBudget(rows[0]);
  }

  /** All budgets of a person, by occasion id. Primary key, or `idx_person_occasion_budget`. */
  async budgetsOfPerson(personId: IdInput, page: PageRequest = {}): Promise<Page<Budget>> {
    const person = parseId('personId', personId);
    const list = `person ${person}`;
    const after = parseCursor(list, page.after);
    return await this.#page(
      list,
      `b.person_id = $1::bigint and b.occasion_id > $2::bigint order by b.occasion_id`,
      [person, after.occasionId],
      page.limit,
    );
  }

  /**
   * All budgets for an occasion, by person id. `idx_person_occasion_occasion`, and no other: the
   * row comparison says the same as `b.person_id > $2` would, but with that PostgreSQL 18 at times
   * skips through the primary key, and guesses wrong what it costs where persons are new.
   */
  async budgetsOfOccasion(occasionId: IdInput, page: PageRequest = {}): Promise<Page<Budget>> {
    const occasion = parseId('occasionId', occasionId);
    const list = `occasion ${occasion}`;
    const after = parseCursor(list, page.after);
    return await this.#page(
      list,
      `b.occasion_id = $1::bigint
       and (b.occasion_id, b.person_id) > ($1::bigint, $2::bigint)
       order by b.person_id`,
      [occasion, after.personId],
      page.limit,
    );
  }

  /**
   * The budgets of which more was spent than planned, by person id and occasion id.
   *
   * No index knows them: the stored total stands in none, not even in the condition of a partial
   * one, because then no update of it could be a cheap, heap-only one. So this walks an index in
   * key order and ends as soon as the page is full: `idx_person_occasion_budget`, which leaves out
   * what has no amount without a look at the table, or the primary key where most have one. A page
   * costs what lies between its first and its last budget: 2 ms where one in ten is over; where
   * none is, about 0.5 µs for every budget with an amount (0.1 s for 240,000). A page that may well
   * take in all amounts there are can be cheaper by the table than by the index, and is then so
   * read; looking each of them up by itself kept to the index, but took twice as long.
   */
  async overBudget(page: PageRequest = {}): Promise<Page<Budget>> {
    const after = parseCursor('over', page.after);
    return await this.#page(
      'over',
      `(b.person_id, b.occasion_id) > ($1::bigint, $2::bigint)
       and b.budget_amount is not null and b.budget_spent > b.budget_amount
       order by b.person_id, b.occasion_id`,
      [after.personId, after.occasionId],
      page.limit,
    );
  }

  /** One row more than the page holds tells whether another page follows. */
  async #page(
    list: string,
    whereAndOrder: string,
    values: readonly string[],
    limitGiven: number | undefined,
  ): Promise<Page<Budget>> {
    const limit = parseLimit(limitGiven);
    const { rows } = await this.#db.query(
      `select ${BUDGET_COLUMNS} from person_occasions b where ${whereAndOrder} limit $3::int`,
      [...values, limit + 1],
    );
    const items = rows.slice(0, limit).map(toBudget);
    const last = items.at(-1);
    return { items, next: rows.length > limit && last ? writeCursor(list, last) : null };
  }
}
