import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Pair } from '../src/events/contract.ts';
import { pairColumns } from '../src/recalculation/pairs.ts';
import { GIFTS } from './data.ts';

const MARKING = ['inserted', 'updated', 'deleted'].map((what) => `gift_persons_mark_${what}`);

/** Switches the triggers that mark changed assignments; the foreign keys stay on either way. */
export async function setMarking(pool: pg.Pool, on: boolean): Promise<void> {
  for (const trigger of MARKING) {
    await pool.query(`alter table gift_persons ${on ? 'enable' : 'disable'} trigger ${trigger}`);
  }
}

/**
 * Writers that insert one assignment per transaction, each on a connection of its own, one after
 * the other, for a while, as programs do.
 *
 * @param pairOf the pair of the next assignment.
 * @returns how many assignments were inserted.
 */
export async function insertAsPrograms(
  pool: pg.Pool,
  writers: number,
  durationMs: number,
  pairOf: () => Pair,
): Promise<number> {
  const until = performance.now() + durationMs;
  const write = async (): Promise<number> => {
    const client = await pool.connect();
    let inserted = 0;
    try {
      for (; performance.now() < until; inserted += 1) {
        const { personId, occasionId } = pairOf();
        await client.query({
          name: 'insert-assignment',
          text: `insert into gift_persons (gift_id, person_id, occasion_id, amount)
                 values ($1, $2, $3, 1.25)`,
          values: [1 + Math.floor(Math.random() * GIFTS), personId, occasionId],
        });
      }
    } finally {
      client.release();
    }
    return inserted;
  };
  const counts = await Promise.all(Array.from({ length: writers }, write));
  return counts.reduce((sum, count) => sum + count, 0);
}

/**
 * Writers that insert one assignment of the pair per transaction in a loop inside PostgreSQL: what
 * is measured is how they wait for each other, and no program's own time.
 *
 * @returns how many assignments were inserted.
 */
export async function insertInLoops(
  pool: pg.Pool,
  writers: number,
  durationMs: number,
  { personId, occasionId }: Pair,
): Promise<number> {
  const write = async (): Promise<void> => {
    await pool.query(
      `do $$
       declare until timestamptz := clock_timestamp() + interval '${durationMs} ms';
       begin
         while clock_timestamp() < until loop
           insert into gift_persons (gift_id, person_id, occasion_id, amount)
           values (1 + floor(random() * ${GIFTS}), ${personId}, ${occasionId}, 1.25);
           commit;
         end loop;
       end $$`,
    );
  };
  const before = await lastAssignment(pool);
  await Promise.all(Array.from({ length: writers }, write));
  return (await lastAssignment(pool)) - before;
}

/** The ids are drawn one by one, and nothing is rolled back. */
async function lastAssignment(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ id: string }>(
    `select last_value as id from gift_persons_id_seq`,
  );
  return Number(rows[0]!.id);
}

/** One statement that inserts an assignment for each pair. */
export async function insertBulk(pool: pg.Pool, pairs: readonly Pair[]): Promise<number> {
  const { rowCount } = await pool.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1 + floor(random() * ${GIFTS}), person_id, occasion_id, 2.5
       from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)`,
    pairColumns(pairs),
  );
  return rowCount!;
}

/** A look costs time of the processors that do the work. */
const POLL_MS = 10;

/** Resolves when no mark is left. */
export async function untilNothingIsPending(pool: pg.Pool): Promise<void> {
  for (;;) {
    const { rows } = await pool.query('select from pending_recalculations limit 1');
    if (rows.length === 0) return;
    await sleep(POLL_MS);
  }
}

/** Forgets the marks, and makes every total right: what a side that is not ours leaves behind. */
export async function tidy(pool: pg.Pool): Promise<void> {
  await pool.query('truncate pending_recalculations');
  await pool.query(
    `begin;
     set local gift_budgets.recalculating = 'on';
     update person_occasions b set budget_spent = s.total
       from (select person_id, occasion_id, sum(amount) as total
               from gift_persons group by person_id, occasion_id) s
      where s.person_id = b.person_id and s.occasion_id = b.occasion_id
        and b.budget_spent <> s.total;
     commit`,
  );
  await pool.query('vacuum person_occasions, gift_persons');
}
