import type { Queryable } from '../database.ts';
import type { Id, Pair } from '../events/contract.ts';
import { faultOf } from './faults.ts';

/** A pair whose stored total is not the sum of its contributions. */
export interface Difference extends Pair {
  readonly stored: string;
  /** The sum; null where it cannot even be computed, see `reason`. */
  readonly right: string | null;
  /**
   * - `pending`: a mark says that it may be wrong; catch-up is about to make it right;
   * - `failed`: listed in `recalculation_failures`, because the sum cannot be stored;
   * - `wrong`: neither, so nothing will make it right by itself. This is drift.
   */
  readonly state: 'wrong' | 'pending' | 'failed';
  /** Why it is listed as a failure, or why its sum cannot be computed. */
  readonly reason: string | null;
}

/** A stretch of budgets, in key order, compared under one snapshot. */
export interface ComparedChunk {
  readonly checked: number;
  /** The last pair of the stretch: hand it in as `after` to go on from here later. */
  readonly last: Pair;
  readonly differences: readonly Difference[];
}

export interface CompareOptions {
  /** Where to start: behind this pair; at the first one unless given. */
  readonly after?: Pair;
  /** The most pairs of a chunk; 1,000 unless given. */
  readonly pairsMax?: number;
  /** A chunk ends at so many differences; it may hold any number unless given. */
  readonly differencesMax?: number;
}

const PAIRS_MAX_DEFAULT = 1_000;

/** PostgreSQL's least bigint, so before every pair. */
const ID_MIN = '-9223372036854775808';
const BEFORE_ALL: Pair = { personId: ID_MIN, occasionId: ID_MIN };

/**
 * Compares every stored total with its sum, in key order, a chunk at a time: no long snapshot, and
 * no more memory for many budgets than for few.
 *
 * A pair whose own data make the sum fail (an error in a replaced `budget_contributions`) is found
 * by making the chunk smaller, and is reported without a right total.
 */
export async function* compareTotals(
  db: Queryable,
  options: CompareOptions = {},
): AsyncGenerator<ComparedChunk, void, undefined> {
  const pairsMax = options.pairsMax ?? PAIRS_MAX_DEFAULT;
  const differencesMax = options.differencesMax ?? Infinity;
  let after = options.after ?? BEFORE_ALL;
  let pairs = pairsMax;
  for (;;) {
    let chunk: ComparedChunk | null;
    try {
      chunk = await compareChunk(db, after, pairs, differencesMax, 'sum');
    } catch (error) {
      const fault = faultOf(error);
      if (fault === 'environment' || (fault === 'slow' && pairs === 1)) throw error;
      if (pairs > 1) {
        pairs = Math.ceil(pairs / 2);
        continue;
      }
      chunk = withReason(await compareChunk(db, after, 1, 1, 'no sum'), error as Error);
    }
    if (chunk === null) return;
    yield chunk;
    after = chunk.last;
    pairs = Math.min(pairsMax, pairs * 2);
  }
}

interface Row {
  readonly person_id: Id;
  readonly occasion_id: Id;
  readonly stored: string;
  readonly total: string | null;
  readonly differs: boolean;
  readonly pending: boolean;
  readonly reason: string | null;
  readonly place: number;
}

/**
 * Compares the `pairsMax` budgets behind `after` in one statement, so under one snapshot: stored
 * total, sum, marks and failures are of the same moment, and what a recalculation commits
 * meanwhile is seen whole or not at all.
 *
 * The sum stands in a lateral subquery, computed per key and rounded as a recalculation does it.
 * Only the pairs that differ come back, and the last one, which says how far the chunk reaches.
 *
 * @param sum 'no sum' reports every pair of the chunk as differing, for a sum that fails.
 */
async function compareChunk(
  db: Queryable,
  after: Pair,
  pairsMax: number,
  differencesMax: number,
  sum: 'sum' | 'no sum',
): Promise<ComparedChunk | null> {
  const { rows } = await db.query(
    `with b as materialized (
       select person_id, occasion_id, budget_spent,
              row_number() over in_order as place,
              lead(person_id) over in_order is null as is_last
         from (
           select person_id, occasion_id, budget_spent
             from person_occasions
            where (person_id, occasion_id) > ($1::bigint, $2::bigint)
            order by person_id, occasion_id
            limit $3::int
         ) as chunk
       window in_order as (order by person_id, occasion_id)
     ), everything as materialized (
       select person_id, occasion_id from pending_recalculations where everything
     ), compared as (
       select b.*, c.total, b.budget_spent is distinct from c.total as differs
         from b
        cross join lateral (${SUMS[sum]}) as c
     )
     select c.person_id::text, c.occasion_id::text, c.place::int, c.differs,
            c.budget_spent::text as stored, c.total::text,
            (select f.reason
               from recalculation_failures f
              where f.person_id = c.person_id and f.occasion_id = c.occasion_id) as reason,
            exists (
              select from pending_recalculations m
               where m.person_id = c.person_id and m.occasion_id = c.occasion_id
                 and not m.everything
            ) or exists (
              select from everything e
               where e.person_id is null or e.occasion_id is null
                  or (e.person_id, e.occasion_id) < (c.person_id, c.occasion_id)
            ) as pending
       from compared c
      where c.differs or c.is_last
      order by c.person_id, c.occasion_id`,
    [after.personId, after.occasionId, pairsMax],
  );
  const found = rows as unknown as Row[];
  const differing = found.filter((row) => row.differs).slice(0, differencesMax);
  const last = differing.length < differencesMax ? found.at(-1) : differing.at(-1);
  if (last === undefined) return null;
  return {
    checked: last.place,
    last: { personId: last.person_id, occasionId: last.occasion_id },
    differences: differing.map(toDifference),
  };
}

const SUMS = {
  sum: `
    select round(coalesce(sum(c.amount), 0), 2) as total
      from budget_contributions c
     where c.person_id = b.person_id and c.occasion_id = b.occasion_id`,
  'no sum': 'select null::numeric as total',
};

function toDifference(row: Row): Difference {
  return {
    personId: row.person_id,
    occasionId: row.occasion_id,
    stored: row.stored,
    right: row.total,
    state: row.pending ? 'pending' : row.reason !== null ? 'failed' : 'wrong',
    reason: row.reason,
  };
}

function withReason(chunk: ComparedChunk | null, { message }: Error): ComparedChunk | null {
  if (chunk === null) return null;
  const differences = chunk.differences.map((difference) => ({
    ...difference,
    reason: difference.reason ?? message,
  }));
  return { ...chunk, differences };
}
