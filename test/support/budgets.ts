import type pg from 'pg';
import { Decimal } from 'decimal.js';
import type { Queryable } from '../../src/database.ts';
import type { Pair } from '../../src/events/contract.ts';

/** Makes persons × occasions with a budget for each pair, and a gift; returns the pairs. */
export async function seedPairs(
  db: Queryable,
  persons: number,
  occasions: number,
): Promise<Pair[]> {
  const { rows } = await db.query(
    `with g as (insert into gifts (name) values ('gift')),
          p as (insert into persons (name) select 'person' from generate_series(1, $1::int) returning id),
          o as (insert into occasions (name) select 'occasion' from generate_series(1, $2::int) returning id)
     select p.id::text as "personId", o.id::text as "occasionId" from p cross join o
      order by p.id, o.id`,
    [persons, occasions],
  );
  const pairs = rows as unknown as Pair[];
  for (const pair of pairs) await createBudget(db, pair);
  await db.query('delete from pending_recalculations');
  return pairs;
}

export async function createBudget(db: Queryable, { personId, occasionId }: Pair): Promise<void> {
  await db.query('insert into person_occasions (person_id, occasion_id) values ($1, $2)', [
    personId,
    occasionId,
  ]);
}

/** Assigns a gift and returns the id of the assignment. */
export async function assign(
  db: Queryable,
  pair: Pair | null,
  amount: string | null,
  personId = pair?.personId,
): Promise<string> {
  const { rows } = await db.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     values ((select min(id) from gifts), $1, $2, $3) returning id::text`,
    [personId, pair?.occasionId ?? null, amount],
  );
  return rows[0]!.id as string;
}

/** Assigns a gift as a restore would: the triggers see nothing of it. */
export async function assignBehindTriggers(
  pool: pg.Pool,
  { personId, occasionId }: Pair,
  amount: string,
): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query(`begin; set local session_replication_role = 'replica'`);
    await client.query(
      `insert into gift_persons (gift_id, person_id, occasion_id, amount)
       values ((select min(id) from gifts), $1, $2, $3)`,
      [personId, occasionId, amount],
    );
    await client.query('commit');
  } finally {
    client.release();
  }
}

export async function spent(db: Queryable, { personId, occasionId }: Pair): Promise<string> {
  const { rows } = await db.query(
    'select budget_spent from person_occasions where person_id = $1 and occasion_id = $2',
    [personId, occasionId],
  );
  return rows[0]!.budget_spent as string;
}

export async function countMarks(db: Queryable): Promise<number> {
  const { rows } = await db.query('select count(*)::int as marks from pending_recalculations');
  return rows[0]!.marks as number;
}

/** The distinct marked pairs as 'person-occasion', sorted; 'everything' for a mark for all. */
export async function markedPairs(db: Queryable): Promise<string[]> {
  const { rows } = await db.query(
    `select distinct case when everything then 'everything' else person_id || '-' || occasion_id end as pair
       from pending_recalculations order by 1`,
  );
  return rows.map((row) => row.pair as string);
}

/** Every budget whose stored total is not the decimal.js sum of its raw assignments. */
export async function wrongTotals(db: Queryable): Promise<string[]> {
  const { rows: assignments } = await db.query(
    'select person_id, occasion_id, amount from gift_persons where occasion_id is not null',
  );
  const sums = new Map<string, Decimal>();
  for (const { person_id, occasion_id, amount } of assignments) {
    const key = `${person_id}-${occasion_id}`;
    sums.set(key, (sums.get(key) ?? new Decimal(0)).plus((amount as string | null) ?? 0));
  }
  const { rows: budgets } = await db.query(
    'select person_id, occasion_id, budget_spent from person_occasions',
  );
  return budgets.flatMap(({ person_id, occasion_id, budget_spent }) => {
    const right = (sums.get(`${person_id}-${occasion_id}`) ?? new Decimal(0)).toFixed(2);
    return right === budget_spent
      ? []
      : [`${person_id}-${occasion_id}: stored ${budget_spent}, right ${right}`];
  });
}

/** Waits until the condition holds, and says what it last saw if it never does. */
export async function eventually<T>(
  read: () => Promise<T>,
  holds: (value: T) => boolean,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await read();
    if (holds(value)) return value;
    if (performance.now() > deadline) {
      throw new Error(`still not so after ${timeoutMs} ms: ${JSON.stringify(value)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
