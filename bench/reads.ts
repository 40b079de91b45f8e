import type pg from 'pg';
import { type DataSize, fill, mustBeRight } from './data.ts';
import { measureAlternating, type Outcome, rateTable, ratioOf } from './measure.ts';
import { withPostgres } from './servers.ts';

const ROUNDS = 9;

/** 20,000 and 5,000 budgets of an occasion. */
const SIZES: readonly DataSize[] = [
  { pairs: 100_000, assignmentsPerPair: 10, personsPerOccasion: 20_000 },
  { pairs: 5_000, assignmentsPerPair: 1_000, personsPerOccasion: 5_000 },
];

const READS = {
  occasion: { where: 'b.occasion_id = 1', atLeast: [10, 200], times: 10 },
  person: { where: 'b.person_id = 1', atLeast: [], times: 300 },
  pair: { where: 'b.person_id = 1 and b.occasion_id = 1', atLeast: [], times: 500 },
} as const;

/** All budgets of an occasion, of a person, one pair: the stored total against one summed on read. */
export async function reads(): Promise<Outcome> {
  const outcomes: Outcome[] = [];
  for (const [place, size] of SIZES.entries()) {
    outcomes.push(
      await withPostgres(async ({ pool }) => {
        await fill(pool, size);
        const outcome = await measureReads(pool, size, place);
        await mustBeRight(pool);
        return outcome;
      }),
    );
  }
  return {
    table: outcomes.flatMap(({ table }) => table),
    figures: outcomes.flatMap(({ figures }) => figures),
  };
}

async function measureReads(pool: pg.Pool, size: DataSize, place: number): Promise<Outcome> {
  const table: string[] = [];
  const figures: Outcome['figures'][number][] = [];
  for (const [name, { where, atLeast, times }] of Object.entries(READS)) {
    const stored = `select b.person_id, b.occasion_id, b.budget_amount, b.budget_spent
      from person_occasions b where ${where}`;
    const summed = `select b.person_id, b.occasion_id, b.budget_amount, coalesce(sum(c.amount), 0)
      from person_occasions b
      left join budget_contributions c using (person_id, occasion_id)
      where ${where} group by b.person_id, b.occasion_id`;
    const measured = await measureAlternating(
      [
        { name: `${name}, stored`, run: async () => await read(pool, stored, times) },
        {
          name: `${name}, summed on read`,
          run: async () => await read(pool, summed, Math.max(1, times / 20)),
        },
      ],
      ROUNDS,
    );
    table.push(...rateTable(measured, `reads/s, ${size.assignmentsPerPair} assignments a pair`));
    const key = `${name}_${size.assignmentsPerPair}`;
    const bound = atLeast[place];
    const value = ratioOf(measured[0]!, measured[1]!);
    figures.push(bound === undefined ? { key, value } : { key, value, atLeast: bound });
  }
  return { table, figures };
}

async function read(pool: pg.Pool, text: string, times: number): Promise<number> {
  for (let time = 0; time < times; time += 1) await pool.query(text);
  return times;
}
