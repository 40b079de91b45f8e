import type pg from 'pg';
import type { Pair } from '../src/events/contract.ts';
import { pairColumns } from '../src/recalculation/pairs.ts';
import { recalculate } from '../src/recalculation/recalculate.ts';
import { type DataSize, fill, makeTotalsWrong, mustBeRight, pairsInRandomOrder } from './data.ts';
import {
  type Measured,
  measureAlternating,
  median,
  type Outcome,
  rateTable,
  ratioOf,
  type Side,
} from './measure.ts';
import { withDatabase, withPostgres } from './servers.ts';

const ROUNDS = 9;
const BATCH_PAIRS = 500;
const PAIRS_MEASURED = 10_000;

const SIZES = {
  few: { pairs: 10_000, assignmentsPerPair: 4 },
  many: { pairs: 1_000_000, assignmentsPerPair: 4 },
  short: { pairs: 5_000, assignmentsPerPair: 10 },
  long: { pairs: 5_000, assignmentsPerPair: 1_000 },
} satisfies Record<string, DataSize>;

/**
 * The cost of a pair, in batches of random pairs, where there are 10,000 pairs and 1,000,000; and
 * where a pair has 10 assignments and 1,000, against the sum alone.
 */
export async function growth(): Promise<Outcome> {
  return await withPostgres(async ({ url }) => {
    const open = async <T>(size: DataSize, work: (pool: pg.Pool) => Promise<T>): Promise<T> =>
      await withDatabase(url, async ({ pool }) => {
        await fill(pool, size);
        const result = await work(pool);
        await mustBeRight(pool);
        return result;
      });
    const pairs = await open(SIZES.few, async (few) =>
      open(SIZES.many, async (many) =>
        measureAlternating(
          [await recalculated('of 10,000 pairs', few), await recalculated('of 1,000,000', many)],
          ROUNDS,
        ),
      ),
    );
    const lengths = await open(SIZES.short, async (short) =>
      open(SIZES.long, async (long) =>
        measureAlternating(
          [
            await recalculated('10 assignments', short),
            await recalculated('1,000 assignments', long),
            await summed('10, the sum alone', short),
            await summed('1,000, the sum alone', long),
          ],
          ROUNDS,
        ),
      ),
    );
    return {
      table: [...rateTable(pairs, 'pairs/s'), ...rateTable(lengths, 'pairs/s')],
      figures: [
        { key: 'cost_at_100_times_the_pairs', value: costRatio(pairs[1]!, pairs[0]!), atMost: 1.3 },
        { key: 'cost_at_100_times_the_length', value: costRatio(lengths[1]!, lengths[0]!) },
        { key: 'sum_alone_at_100_times', value: costRatio(lengths[3]!, lengths[2]!) },
        { key: 'us_per_pair', value: 1e6 / median(pairs[0]!.rates) },
      ],
    };
  });
}

function costRatio(dear: Measured, cheap: Measured): number {
  return ratioOf(cheap, dear);
}

async function recalculated(name: string, pool: pg.Pool): Promise<Side> {
  const pairs = await somePairs(pool);
  return {
    name,
    prepare: async () => await makeTotalsWrong(pool, pairs),
    run: async () =>
      await inBatches(pairs, async (batch) => {
        await recalculate(pool, batch);
      }),
  };
}

async function summed(name: string, pool: pg.Pool): Promise<Side> {
  const pairs = await somePairs(pool);
  return {
    name,
    run: async () =>
      await inBatches(pairs, async (batch) => {
        await pool.query(
          `select k.*, c.total
             from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)
            cross join lateral (
              select coalesce(sum(c.amount), 0) as total
                from budget_contributions c
               where c.person_id = k.person_id and c.occasion_id = k.occasion_id
            ) as c`,
          pairColumns(batch),
        );
      }),
  };
}

/** Always the same, so that no side has the advantage of warmer memory. */
async function somePairs(pool: pg.Pool): Promise<Pair[]> {
  return (await pairsInRandomOrder(pool)).slice(0, PAIRS_MEASURED);
}

async function inBatches(
  pairs: readonly Pair[],
  work: (batch: readonly Pair[]) => Promise<void>,
): Promise<number> {
  for (let from = 0; from < pairs.length; from += BATCH_PAIRS) {
    await work(pairs.slice(from, from + BATCH_PAIRS));
  }
  return pairs.length;
}
