import type { Pair } from '../events/contract.ts';
import type { Queryable } from '../queryable.ts';
import {
  type Budget,
  BUDGET_COLUMNS,
  type BudgetToldPending,
  type BudgetWithPending,
  toBudget,
} from './budget.ts';
import { type Lag, readLag } from './lag.ts';
import { IS_PENDING, WITH_EVERYTHING } from './marks.ts';
import {
  BudgetQueryError,
  type IdInput,
  type Page,
  type PageRequest,
  parseCursor,
  parseId,
  parseLimit,
  writeCursor,
} from './page.ts';
import { parseTimeout, waitUntilFresh } from './wait-until-fresh.ts';

export interface BudgetKey {
  readonly personId: IdInput;
  readonly occasionId: IdInput;
}

/** @typeParam Told whether each budget also says `isPending`; not unless asked for. */
export interface ReadOptions<Told extends boolean = boolean> {
  readonly pending?: Told;
}

export interface WaitOptions {
  /** Ends the waiting with its reason. */
  readonly signal?: AbortSignal;
}

/**
 * Reads budgets and their stored totals. Every method is one query on an index; a list comes in
 * pages, each of which starts where the one before ended, so that a late page costs what the
 * first one does. A list that changes between two pages shows each budget at most once.
 *
 * With `pending: true` each budget also says whether a mark is pending for it, of the same moment
 * as its total. It costs another probe of an index for each budget; unasked, it costs nothing.
 *
 * @throws {BudgetQueryError} from each method, where an id, a limit, a cursor or an option makes no
 *   sense.
 */
export class BudgetReader {
  readonly #db: Queryable;

  /** @param db a pg.Pool, or a client of one. */
  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Primary key, or another index of the same two columns. */
  async budget<Told extends boolean = false>(
    pair: BudgetKey,
    { pending }: ReadOptions<Told> = {},
  ): Promise<BudgetToldPending<Told> | null> {
    const { personId, occasionId } = parseKey(pair);
    const told = TOLD[parsePending(pending)];
    const { rows } = await this.#db.query(
      `${told.begin}select ${told.columns}
         from person_occasions b
        where b.person_id = $1::bigint and b.occasion_id = $2::bigint`,
      [personId, occasionId],
    );
    return rows[0] === undefined ? null : (told.toBudget(rows[0]) as BudgetToldPending<Told>);
  }

  /** All budgets of a person, by occasion id. Primary key, or `idx_person_occasion_budget`. */
  async budgetsOfPerson<Told extends boolean = false>(
    personId: IdInput,
    page: PageRequest & ReadOptions<Told> = {},
  ): Promise<Page<BudgetToldPending<Told>>> {
    const person = parseId('personId', personId);
    const list = `person ${person}`;
    const after = parseCursor(list, page.after);
    return await this.#page(
      list,
      `b.person_id = $1::bigint and b.occasion_id > $2::bigint order by b.occasion_id`,
      [person, after.occasionId],
      page,
    );
  }

  /**
   * All budgets for an occasion, by person id. `idx_person_occasion_occasion`, and no other: the
   * row comparison says the same as `b.person_id > $2` would, but with that PostgreSQL 18 at times
   * skips through the primary key, and guesses wrong what it costs where persons are new.
   */
  async budgetsOfOccasion<Told extends boolean = false>(
    occasionId: IdInput,
    page: PageRequest & ReadOptions<Told> = {},
  ): Promise<Page<BudgetToldPending<Told>>> {
    const occasion = parseId('occasionId', occasionId);
    const list = `occasion ${occasion}`;
    const after = parseCursor(list, page.after);
    return await this.#page(
      list,
      `b.occasion_id = $1::bigint
       and (b.occasion_id, b.person_id) > ($1::bigint, $2::bigint)
       order by b.person_id`,
      [occasion, after.personId],
      page,
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
  async overBudget<Told extends boolean = false>(
    page: PageRequest & ReadOptions<Told> = {},
  ): Promise<Page<BudgetToldPending<Told>>> {
    const after = parseCursor('over', page.after);
    return await this.#page(
      'over',
      `(b.person_id, b.occasion_id) > ($1::bigint, $2::bigint)
       and b.budget_amount is not null and b.budget_spent > b.budget_amount
       order by b.person_id, b.occasion_id`,
      [after.personId, after.occasionId],
      page,
    );
  }

  /** How far the stored totals are behind: one query of bounded work, however many marks wait. */
  async lag(): Promise<Lag> {
    return await readLag(this.#db);
  }

  /**
   * Reads a budget once its total has every change in it that was committed before the call: for who
   * must read what he has just written. Call it after the commit, and not inside a transaction; on a
   * replica the mark itself may come late. Changes that others make meanwhile may be in it or not.
   *
   * @param timeoutMs how long to wait at most, in milliseconds; 0 for a single look.
   * @returns null where there is no such budget.
   * @throws {BudgetNotFreshError} where one of those changes is still pending then.
   * @throws {BudgetFailedError} as soon as it is known that the total cannot be stored.
   */
  async waitUntilFresh(
    pair: BudgetKey,
    timeoutMs: number,
    { signal }: WaitOptions = {},
  ): Promise<Budget | null> {
    return await waitUntilFresh(this.#db, parseKey(pair), parseTimeout(timeoutMs), signal);
  }

  /** One row more than the page holds tells whether another page follows. */
  async #page<Told extends boolean>(
    list: string,
    whereAndOrder: string,
    values: readonly string[],
    page: PageRequest & ReadOptions<Told>,
  ): Promise<Page<BudgetToldPending<Told>>> {
    const limit = parseLimit(page.limit);
    const told = TOLD[parsePending(page.pending)];
    const { rows } = await this.#db.query(
      `${told.begin}select ${told.columns} from person_occasions b where ${whereAndOrder} limit $3::int`,
      [...values, limit + 1],
    );
    const items = rows.slice(0, limit).map(told.toBudget) as BudgetToldPending<Told>[];
    const last = items.at(-1);
    return { items, next: rows.length > limit && last ? writeCursor(list, last) : null };
  }
}

/** What a query begins with and selects, and what becomes of its rows. */
const TOLD = {
  'without pending': { begin: '', columns: BUDGET_COLUMNS, toBudget },
  'with pending': {
    begin: WITH_EVERYTHING,
    columns: `${BUDGET_COLUMNS}, ${IS_PENDING} as is_pending`,
    toBudget: (row: Record<string, unknown>): BudgetWithPending => ({
      ...toBudget(row),
      isPending: row.is_pending as boolean,
    }),
  },
};

function parsePending(pending: boolean | undefined): keyof typeof TOLD {
  if (pending === undefined || pending === false) return 'without pending';
  if (pending === true) return 'with pending';
  throw BudgetQueryError.expected('pending', 'true or false', pending);
}

function parseKey({ personId, occasionId }: BudgetKey): Pair {
  return {
    personId: parseId('personId', personId),
    occasionId: parseId('occasionId', occasionId),
  };
}
