import type pg from 'pg';
import type { Pair } from '../src/events/contract.ts';
import { pairColumns } from '../src/recalculation/pairs.ts';

export interface DataSize {
  readonly pairs: number;
  readonly assignmentsPerPair: number;
  /** How many persons have a budget for one occasion; a tenth of the pairs unless given. */
  readonly personsPerOccasion?: number;
}

/** What most benchmarks measure on. */
export const USUAL_SIZE: DataSize = { pairs: 100_000, assignmentsPerPair: 10 };

/** With a single one all writers would lock the same gift, and pay for that more than for marks. */
export const GIFTS = 10_000;

/**
 * Fills an empty database: budgets and assignments in random order, so that neither the rows of a
 * pair nor neighbouring pairs lie beside each other; every stored total is right, and no mark is left.
 */
export async function fill(pool: pg.Pool, size: DataSize): Promise<void> {
  const persons = size.personsPerOccasion ?? size.pairs / 10;
  const occasions = size.pairs / persons;
  await pool.query(
    `insert into persons (name) select 'p' || i from generate_series(1, ${persons}) i`,
  );
  await pool.query(
    `insert into occasions (name) select 'o' || i from generate_series(1, ${occasions}) i`,
  );
  await pool.query(`insert into gifts (name) select 'g' || i from generate_series(1, ${GIFTS}) i`);
  await withoutMarks(pool, [
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1 + floor(random() * ${GIFTS}), p.id, o.id, round((random() * 100)::numeric, 2)
       from persons p cross join occasions o
      cross join generate_series(1, ${size.assignmentsPerPair})
      order by random()`,
    `insert into person_occasions (person_id, occasion_id, budget_amount, budget_spent)
     select person_id, occasion_id, 500, sum(amount)
       from gift_persons
      group by person_id, occasion_id
      order by random()`,
  ]);
  await pool.query('vacuum analyze');
  // Or the disk would be busy with it while something is measured.
  await pool.query('checkpoint');
}

/** Runs the statements behind the triggers, in one transaction. */
export async function withoutMarks(pool: pg.Pool, statements: readonly string[]): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query(`begin; set local session_replication_role = replica`);
    for (const statement of statements) await client.query(statement);
    await client.query('commit');
  } finally {
    client.release();
  }
}

/** Every pair there is, in an order that is new each time. */
export async function pairsInRandomOrder(pool: pg.Pool): Promise<Pair[]> {
  const { rows } = await pool.query<Pair>(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from person_occasions order by random()`,
  );
  return rows;
}

/** Makes the stored totals of the pairs wrong without a mark, and the table as tidy as it was. */
export async function makeTotalsWrong(pool: pg.Pool, pairs: readonly Pair[]): Promise<void> {
  const [personIds, occasionIds] = pairColumns(pairs);
  await withoutMarks(pool, [
    `update person_occasions b set budget_spent = -1
       from unnest('${personIds}'::bigint[], '${occasionIds}'::bigint[]) as k (person_id, occasion_id)
      where b.person_id = k.person_id and b.occasion_id = k.occasion_id`,
  ]);
  await pool.query('vacuum person_occasions, pending_recalculations');
}

/** @throws unless every stored total is the sum of its assignments, asked by SQL of its own. */
export async function mustBeRight(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ checked: string; wrong: string }>(
    `select count(*) as checked,
            count(*) filter (where b.budget_spent <> coalesce(s.total, 0)) as wrong
       from person_occasions b
       left join (select person_id, occasion_id, sum(amount) as total
                    from gift_persons where occasion_id is not null
                   group by person_id, occasion_id) s using (person_id, occasion_id)`,
  );
  const { checked, wrong } = rows[0]!;
  if (wrong !== '0') throw new Error(`${wrong} of ${checked} totals are wrong`);
  console.log(`checked by independent SQL: ${checked} totals, 0 wrong`);
}
