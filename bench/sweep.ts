import type pg from 'pg';
import { beginSweep, unfinishedSweep } from '../src/recalculation/sweep-record.ts';
import { sweepChunk } from '../src/recalculation/sweep.ts';
import { fill, mustBeRight } from './data.ts';
import { measureAlternating, type Outcome, rateTable, ratioOf } from './measure.ts';
import { withPostgres } from './servers.ts';

const ROUNDS = 9;
const PAIRS = 1_000_000;
const CHUNK_PAIRS = 500;

/** 1,000,000 budgets with 5 assignments each, against one statement that compares them all. */
export async function sweep(): Promise<Outcome> {
  return await withPostgres(async ({ pool }) => {
    await fill(pool, { pairs: PAIRS, assignmentsPerPair: 5 });
    let memoryGrowth = 0;
    const measured = await measureAlternating(
      [
        {
          name: 'sweep',
          async run() {
            const before = process.memoryUsage().rss;
            const peak = await sweepAll(pool);
            memoryGrowth = Math.max(memoryGrowth, (peak - before) / 2 ** 20);
            return PAIRS;
          },
        },
        { name: 'one statement', run: async () => await compareInOneStatement(pool) },
      ],
      ROUNDS,
    );
    await mustBeRight(pool);
    return {
      table: rateTable(measured, 'budgets/s'),
      figures: [
        { key: 'time_vs_one_statement', value: ratioOf(measured[1]!, measured[0]!), atMost: 2 },
        { key: 'memory_growth_mb', value: memoryGrowth, atMost: 50 },
      ],
    };
  });
}

/** @returns the most memory that was in use, in bytes. */
async function sweepAll(pool: pg.Pool): Promise<number> {
  await beginSweep(pool, 'repair', 0);
  const begun = await unfinishedSweep(pool);
  let peak = 0;
  for (let chunks = 0; ; chunks += 1) {
    if (chunks % 100 === 0) peak = Math.max(peak, process.memoryUsage().rss);
    const swept = await sweepChunk(pool, begun!.id, CHUNK_PAIRS);
    if (swept === null || swept.sweep.finishedAt !== null) return peak;
    if (swept.findings.length > 0) throw new Error('there was nothing to be found');
  }
}

async function compareInOneStatement(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ differing: string }>(
    `select count(*) as differing
       from person_occasions b
       left join (select person_id, occasion_id, sum(amount) as total
                    from budget_contributions group by person_id, occasion_id) s
            using (person_id, occasion_id)
      where b.budget_spent is distinct from round(coalesce(s.total, 0), 2)`,
  );
  if (rows[0]!.differing !== '0') throw new Error('there was nothing to be found');
  return PAIRS;
}
