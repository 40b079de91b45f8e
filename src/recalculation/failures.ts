import type pg from 'pg';
import type { Queryable } from '../database.ts';
import type { Id, Pair } from '../events/contract.ts';
import { pairKey, type PairResult } from './pairs.ts';
import { recalculate } from './recalculate.ts';

/** A pair whose sum cannot be stored, with the names that people know it by. */
export interface ListedFailure extends Pair {
  /** Null where person, occasion or budget are gone: the entry waits for its last recalculation. */
  readonly person: string | null;
  readonly occasion: string | null;
  readonly reason: string;
  /** The sum that cannot be stored; null where it cannot even be computed. */
  readonly total: string | null;
  readonly attempts: number;
  readonly firstFailedAt: Date;
  readonly lastFailedAt: Date;
}

export interface FailureFilter {
  /** All persons unless given. */
  readonly personIds?: readonly Id[];
  /** All occasions unless given. */
  readonly occasionIds?: readonly Id[];
}

/** How many there are, counted up to `countMax` where that is given. */
export async function countFailures(db: Queryable, countMax?: number): Promise<number> {
  const { rows } = await db.query(
    `select count(*)::float8 as count
       from (select from recalculation_failures limit $1::bigint) as f`,
    [countMax ?? null],
  );
  return rows[0]!.count as number;
}

/** The most pairs of one recalculation. */
const CHUNK_MAX = 500;

/** The failures in key order, a chunk at a time: each is shown once, also while others are mended. */
export async function* readFailures(
  db: Queryable,
  filter: FailureFilter = {},
  chunkMax = CHUNK_MAX,
): AsyncGenerator<ListedFailure[], void, undefined> {
  let after: Pair | undefined;
  for (;;) {
    const chunk = await readChunk(db, filter, after, chunkMax);
    if (chunk.length > 0) yield chunk;
    if (chunk.length < chunkMax) return;
    after = chunk.at(-1);
  }
}

export interface RetriedFailure {
  readonly failure: ListedFailure;
  readonly result: PairResult;
}

/** Recalculates the failures, each once, and tells what became of them. */
export async function* retryFailures(
  pool: pg.Pool,
  filter: FailureFilter = {},
): AsyncGenerator<RetriedFailure[], void, undefined> {
  for await (const failures of readFailures(pool, filter)) {
    const pairs = failures.map(({ personId, occasionId }) => ({ personId, occasionId }));
    const results = await recalculate(pool, pairs);
    const byKey = new Map(results.map((result) => [pairKey(result), result]));
    yield failures.map((failure) => ({ failure, result: byKey.get(pairKey(failure))! }));
  }
}

async function readChunk(
  db: Queryable,
  { personIds, occasionIds }: FailureFilter,
  after: Pair | undefined,
  chunkMax: number,
): Promise<ListedFailure[]> {
  const { rows } = await db.query(
    `select f.person_id::text as "personId", f.occasion_id::text as "occasionId",
            p.name as person, o.name as occasion, f.reason, f.total, f.attempts,
            extract(epoch from f.first_failed_at)::float8 as first,
            extract(epoch from f.last_failed_at)::float8 as last
       from recalculation_failures f
       left join persons p on p.id = f.person_id
       left join occasions o on o.id = f.occasion_id
      where ($1::bigint[] is null or f.person_id = any ($1::bigint[]))
        and ($2::bigint[] is null or f.occasion_id = any ($2::bigint[]))
        and ($3::bigint is null or (f.person_id, f.occasion_id) > ($3::bigint, $4::bigint))
      order by f.person_id, f.occasion_id
      limit $5::int`,
    [
      personIds ?? null,
      occasionIds ?? null,
      after?.personId ?? null,
      after?.occasionId ?? null,
      chunkMax,
    ],
  );
  return rows.map(({ first, last, ...row }) => ({
    ...(row as unknown as ListedFailure),
    firstFailedAt: new Date((first as number) * 1_000),
    lastFailedAt: new Date((last as number) * 1_000),
  }));
}
