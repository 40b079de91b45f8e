import type pg from 'pg';
import { makeTotalsWrong, pairsInRandomOrder, withoutMarks } from '../../bench/data.ts';
import { median } from '../../bench/measure.ts';
import type { Pair } from '../../src/events/contract.ts';
import { pairColumns } from '../../src/recalculation/pairs.ts';
import { recalculate } from '../../src/recalculation/recalculate.ts';
import type { Side } from './sides.ts';

/** What a writer does to these pairs; `prepare` is not measured. */
interface Write {
  readonly name: string;
  readonly prepare?: (pool: pg.Pool, pairs: readonly Pair[]) => Promise<void>;
  readonly run: (pool: pg.Pool, pairs: readonly Pair[]) => Promise<void>;
}

const BATCH_PAIRS = 500;

const WRITES: readonly Write[] = [
  {
    name: 'a new budget',
    prepare: async (pool, pairs) =>
      await withoutMarks(pool, [
        `delete from person_occasions b using ${keysOf(pairs)} where ${SAME_PAIR}`,
        'delete from pending_recalculations',
      ]),
    run: async (pool, pairs) =>
      await inTransaction(
        pool,
        `insert into person_occasions (person_id, occasion_id, budget_amount)
         select person_id, occasion_id, 100 from ${keysOf(pairs)}`,
      ),
  },
  {
    name: 'a new total, by the recalculation',
    prepare: makeTotalsWrong,
    run: async (pool, pairs) => {
      for (let from = 0; from < pairs.length; from += BATCH_PAIRS) {
        await recalculate(pool, pairs.slice(from, from + BATCH_PAIRS));
      }
    },
  },
  {
    name: 'a new `budget_amount`',
    run: async (pool, pairs) =>
      await inTransaction(
        pool,
        `update person_occasions b set budget_amount = coalesce(budget_amount, 0) + 1
           from ${keysOf(pairs)} where ${SAME_PAIR}`,
      ),
  },
];

const PAIRS_MAX = 2_000;
const ROUNDS = 7;

export interface WriteResult {
  readonly write: string;
  readonly side: string;
  readonly microseconds: number;
  /** The time in terms of that with the primary key alone, in the same rounds. */
  readonly timeRatio: number;
  /** Bytes that a row adds to the log, but for the images of pages that it is the first to touch. */
  readonly walBytes: number;
  /** Those images, right after a checkpoint: the most that they can be. */
  readonly pageImageBytes: number;
  /** The share of updates that touched no index; null for what is no update. */
  readonly hotShare: number | null;
}

interface Sample {
  readonly microseconds: number;
  readonly walBytes: number;
  readonly pageImageBytes: number;
  readonly hotShare: number | null;
}

/** Measures every write on every side, the sides in turn, the same pairs for all of a round. */
export async function measureWrites(sides: readonly Side[]): Promise<WriteResult[]> {
  const pairs = await pairsInRandomOrder(sides[0]!.pool);
  const pairsOfRound = Math.min(PAIRS_MAX, Math.floor(pairs.length / ROUNDS));
  const results: WriteResult[] = [];
  for (const write of WRITES) {
    const samples = sides.map((): Sample[] => []);
    for (let round = 0; round < ROUNDS; round += 1) {
      const chosen = pairs.slice(round * pairsOfRound, (round + 1) * pairsOfRound);
      for (let turn = 0; turn < sides.length; turn += 1) {
        const place = (round + turn) % sides.length;
        samples[place]!.push(await measure(sides[place]!.pool, write, chosen));
      }
    }
    for (const [place, side] of sides.entries()) {
      const own = samples[place]!;
      const ratio = ({ microseconds }: Sample, round: number): number =>
        microseconds / samples[0]![round]!.microseconds;
      results.push({
        write: write.name,
        side: side.name,
        microseconds: median(own.map((sample) => sample.microseconds)),
        timeRatio: median(own.map(ratio)),
        walBytes: median(own.map((sample) => sample.walBytes)),
        pageImageBytes: median(own.map((sample) => sample.pageImageBytes)),
        hotShare: own[0]!.hotShare === null ? null : median(own.map(({ hotShare }) => hotShare!)),
      });
    }
  }
  return results;
}

/** All of it for one pair. */
async function measure(pool: pg.Pool, write: Write, pairs: readonly Pair[]): Promise<Sample> {
  await write.prepare?.(pool, pairs);
  await pool.query('vacuum person_occasions, pending_recalculations');
  await pool.query('checkpoint');
  const before = await readState(pool);
  const startedAt = performance.now();
  await write.run(pool, pairs);
  const ms = performance.now() - startedAt;
  const after = await readState(pool);
  const { rows } = await pool.query<{ records: number; images: number }>(
    `select sum(record_size)::float as records, sum(fpi_size)::float as images
       from pg_get_wal_stats($1, $2)`,
    [before.lsn, after.lsn],
  );
  const updates = after.updates - before.updates;
  return {
    microseconds: (1_000 * ms) / pairs.length,
    walBytes: rows[0]!.records / pairs.length,
    pageImageBytes: rows[0]!.images / pairs.length,
    hotShare: updates === 0 ? null : (after.hot - before.hot) / updates,
  };
}

async function readState(pool: pg.Pool): Promise<{ lsn: string; updates: number; hot: number }> {
  // On the connection that wrote, since that was used last. The commit brings the log to the disk.
  await pool.query('select pg_stat_force_next_flush(), pg_current_xact_id()');
  const { rows } = await pool.query<{ lsn: string; updates: number; hot: number }>(
    `select pg_current_wal_flush_lsn() as lsn,
            n_tup_upd::float as updates, n_tup_hot_upd::float as hot
       from pg_stat_user_tables where relname = 'person_occasions'`,
  );
  return rows[0]!;
}

const SAME_PAIR = '(b.person_id, b.occasion_id) = (k.person_id, k.occasion_id)';

function keysOf(pairs: readonly Pair[]): string {
  const [persons, occasions] = pairColumns(pairs);
  return `unnest('${persons}'::bigint[], '${occasions}'::bigint[]) as k (person_id, occasion_id)`;
}

/** Finds each row by an index, as a writer of single rows does, without his round trips. */
async function inTransaction(pool: pg.Pool, statement: string): Promise<void> {
  await pool.query(
    `begin;
     set local enable_hashjoin = off; set local enable_mergejoin = off; set local enable_seqscan = off;
     ${statement};
     commit`,
  );
}
