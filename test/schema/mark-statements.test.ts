import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Pair } from '../../src/events/contract.ts';
import { assign, countMarks, markedPairs, seedPairs } from '../support/budgets.ts';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

// Every kind of statement that can change an assignment, and what it marks.

let database: TestDatabase;
let a: Pair;
let b: Pair;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  [a, b] = (await seedPairs(database.pool, 1, 2)) as [Pair, Pair];
});

describe('inserts', () => {
  it('insert … select marks each pair once', async () => {
    expect(
      await marksOf(
        `insert into gift_persons (gift_id, person_id, occasion_id, amount)
         select gift, ${a.personId}, occasion, i from generate_series(1, 40) i,
           (select min(id) as gift from gifts) g, unnest(array[${a.occasionId}, ${b.occasionId}]) occasion`,
      ),
    ).toEqual(pairs(a, b));
    expect(await countMarks(database.pool)).toBe(2);
  });

  it('copy', async () => {
    // Through a program of the server, as the driver has no COPY of its own.
    const { rows } = await database.pool.query('select min(id) as gift from gifts');
    const line = `${rows[0].gift},${a.personId},${a.occasionId},5`;
    expect(
      await marksOf(
        `copy gift_persons (gift_id, person_id, occasion_id, amount)
           from program 'echo ${line}' with (format csv)`,
      ),
    ).toEqual(pairs(a));
  });

  it('on conflict do update marks what it inserts and what it updates', async () => {
    const id = await assign(database.upstream.pool, a, '5.00');
    expect(
      await marksOf(
        `insert into gift_persons (id, gift_id, person_id, occasion_id, amount)
         select i, g, ${b.personId}, ${b.occasionId}, 6
           from unnest(array[${id}, ${id}::bigint + 1000000]) i, (select min(id) as g from gifts) x
             on conflict (id) do update set amount = excluded.amount`,
      ),
    ).toEqual(pairs(a, b));
  });

  it('on conflict do nothing marks nothing that it left alone', async () => {
    const id = await assign(database.upstream.pool, a, '5.00');
    expect(
      await marksOf(
        `insert into gift_persons (id, gift_id, person_id, occasion_id, amount)
         select ${id}, min(id), ${b.personId}, ${b.occasionId}, 6 from gifts on conflict do nothing`,
      ),
    ).toEqual([]);
  });
});

describe('updates and deletes', () => {
  it('update … from', async () => {
    const id = await assign(database.upstream.pool, a, '5.00');
    expect(
      await marksOf(
        `update gift_persons gp set amount = v.amount
           from (values (${id}::bigint, 7.5)) v (id, amount) where v.id = gp.id`,
      ),
    ).toEqual(pairs(a));
  });

  it('delete … using', async () => {
    await assign(database.upstream.pool, a, '5.00');
    await assign(database.upstream.pool, b, '5.00');
    expect(
      await marksOf(
        `delete from gift_persons gp using occasions o
          where o.id = gp.occasion_id and o.id = ${b.occasionId}`,
      ),
    ).toEqual(pairs(b));
  });

  it('merge marks what it inserts, updates and deletes', async () => {
    const [first] = (await seedPairs(database.pool, 1, 1)) as [Pair];
    const updated = await assign(database.upstream.pool, a, '5.00');
    const deleted = await assign(database.upstream.pool, b, '5.00');
    expect(
      await marksOf(
        `merge into gift_persons gp
         using (values (${updated}::bigint, 6), (${deleted}::bigint, 0), (-1, 7)) v (id, amount)
            on gp.id = v.id
          when matched and v.amount = 0 then delete
          when matched then update set amount = v.amount
          when not matched then insert (gift_id, person_id, occasion_id, amount)
               values ((select min(id) from gifts), ${first.personId}, ${first.occasionId}, v.amount)`,
      ),
    ).toEqual(pairs(a, b, first));
  });

  it('several statements in one, with their results used', async () => {
    const id = await assign(database.upstream.pool, a, '5.00');
    expect(
      await marksOf(
        `with gone as (delete from gift_persons where id = ${id} returning gift_id, amount)
         insert into gift_persons (gift_id, person_id, occasion_id, amount)
         select gift_id, ${b.personId}, ${b.occasionId}, amount from gone`,
      ),
    ).toEqual(pairs(a, b));
  });

  it('a statement that changes no row marks nothing', async () => {
    await assign(database.upstream.pool, a, '5.00');
    expect(await marksOf('update gift_persons set amount = 1 where id = -1')).toEqual([]);
    expect(await marksOf('delete from gift_persons where id = -1')).toEqual([]);
  });
});

describe('what reaches assignments through a foreign key', () => {
  const moved = (id: string): string => String(BigInt(id) + 1_000_000n);

  beforeEach(async () => {
    await assign(database.upstream.pool, a, '5.00');
  });

  it('a new key of an occasion marks the old pair and the new one', async () => {
    expect(
      await marksOf(`update occasions set id = ${moved(a.occasionId)} where id = ${a.occasionId}`),
    ).toEqual(pairs(a, { ...a, occasionId: moved(a.occasionId) }));
  });

  it('so does a new key of a budget', async () => {
    const [other] = (await seedPairs(database.pool, 1, 1)) as [Pair];
    await database.pool.query(`delete from person_occasions where person_id = ${other.personId}`);
    const where = `person_id = ${a.personId} and occasion_id = ${a.occasionId}`;
    expect(
      await marksOf(
        `update person_occasions set person_id = ${other.personId}, occasion_id = ${other.occasionId}
          where ${where}`,
      ),
    ).toEqual(pairs(a, other));
  });

  it.each(['gifts', 'persons', 'occasions', 'person_occasions'])(
    'truncate %s cascade leaves a mark for everything',
    async (table) => {
      expect(await marksOf(`truncate ${table} cascade`)).toEqual(['everything']);
    },
  );
});

/** Runs a statement, and returns the pairs that are marked by it alone. */
async function marksOf(statement: string): Promise<string[]> {
  await database.pool.query('delete from pending_recalculations');
  await database.pool.query(statement);
  return await markedPairs(database.pool);
}

function pairs(...list: readonly Pair[]): string[] {
  return list.map(({ personId, occasionId }) => `${personId}-${occasionId}`).toSorted();
}
