import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Pair } from '../../src/events/contract.ts';
import { assign, countMarks, markedPairs, seedPairs } from '../support/budgets.ts';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

let database: TestDatabase;
let [a, b]: Pair[] = [];

const key = (pair: Pair): string => `${pair.personId}-${pair.occasionId}`;
const sql = async (text: string, values: unknown[] = []) => await database.pool.query(text, values);
const clear = async () => await sql('delete from pending_recalculations');

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  [a, b] = await seedPairs(database.pool, 1, 2);
});

describe('a change of an assignment marks its pair', () => {
  it('insert, also many at once, each pair once a statement', async () => {
    await sql(
      `insert into gift_persons (gift_id, person_id, occasion_id, amount)
       select (select min(id) from gifts), $1, o, 1
         from unnest(array[$2::bigint, $3::bigint]) o, generate_series(1, 50)`,
      [a!.personId, a!.occasionId, b!.occasionId],
    );
    expect(await countMarks(database.pool)).toBe(2);
    expect(await markedPairs(database.pool)).toEqual([key(a!), key(b!)].toSorted());
  });

  it('update of each column, and delete', async () => {
    const id = await assign(database.upstream.pool, a!, '5.00');
    const changes = [
      'amount = 6',
      'amount = null',
      `gift_id = (select max(id) from gifts)`,
      'person_id = person_id',
      'id = id + 1000000',
    ];
    for (const change of changes) {
      await clear();
      await sql(
        `update gift_persons set ${change} where id in ($1::bigint, $1::bigint + 1000000)`,
        [id],
      );
      expect(await markedPairs(database.pool), change).toEqual([key(a!)]);
    }
    await clear();
    await sql('delete from gift_persons where id = $1::bigint + 1000000', [id]);
    expect(await markedPairs(database.pool)).toEqual([key(a!)]);
  });

  it('a move marks both pairs, a move to or from no occasion the one there is', async () => {
    const id = await assign(database.upstream.pool, a!, '5.00');
    const move = async (occasionId: string | null) => {
      await clear();
      await sql('update gift_persons set occasion_id = $2 where id = $1', [id, occasionId]);
      return await markedPairs(database.pool);
    };
    expect(await move(b!.occasionId)).toEqual([key(a!), key(b!)].toSorted());
    expect(await move(null)).toEqual([key(b!)]);
    expect(await move(a!.occasionId)).toEqual([key(a!)]);
  });

  it('an assignment for no occasion marks nothing', async () => {
    await assign(database.upstream.pool, null, '5.00', a!.personId);
    expect(await countMarks(database.pool)).toBe(0);
  });

  it.each(['gifts', 'persons', 'occasions', 'person_occasions'])(
    'a delete that cascades from %s',
    async (table) => {
      await sql(
        `insert into gift_persons (gift_id, person_id, occasion_id, amount)
         select (select max(id) from gifts), $1, $2, 1`,
        [a!.personId, a!.occasionId],
      );
      await clear();
      const conditions: Record<string, string> = {
        gifts: 'id = (select max(id) from gifts)',
        persons: `id = ${a!.personId}`,
        occasions: `id = ${a!.occasionId}`,
        person_occasions: `person_id = ${a!.personId} and occasion_id = ${a!.occasionId}`,
      };
      await sql(`delete from ${table} where ${conditions[table]}`);
      expect(await markedPairs(database.pool)).toContain(key(a!));
    },
  );

  it('a new key of the person marks the old pair and the new one', async () => {
    await assign(database.upstream.pool, a!, '5.00');
    await clear();
    await sql('update persons set id = id + 1000000 where id = $1', [a!.personId]);
    const moved = `${BigInt(a!.personId) + 1000000n}-${a!.occasionId}`;
    const marked = await markedPairs(database.pool);
    expect(marked).toContain(moved);
    expect(marked).toContain(key(a!));
  });

  it('truncate leaves one mark for everything', async () => {
    await assign(database.upstream.pool, a!, '5.00');
    await clear();
    await sql('truncate gift_persons');
    expect(await markedPairs(database.pool)).toEqual(['everything']);
  });

  it('a change that is rolled back leaves no mark', async () => {
    const client = await database.pool.connect();
    await client.query('begin');
    await assign(client, a!, '5.00');
    await client.query('rollback');
    client.release();
    expect(await countMarks(database.pool)).toBe(0);
  });
});

describe('a foreign change of a budget', () => {
  it('of budget_spent marks; ours, a notes edit and a save of the same total do not', async () => {
    const where = `where person_id = ${a!.personId} and occasion_id = ${a!.occasionId}`;
    await sql(
      `update person_occasions set budget_notes = 'x', budget_spent = budget_spent ${where}`,
    );
    expect(await countMarks(database.pool)).toBe(0);
    const client = await database.pool.connect();
    await client.query('begin');
    await client.query(`set local gift_budgets.recalculating = 'on'`);
    await client.query(`update person_occasions set budget_spent = 7 ${where}`);
    await client.query('commit');
    client.release();
    expect(await countMarks(database.pool)).toBe(0);
    await sql(`update person_occasions set budget_spent = 8 ${where}`);
    expect(await markedPairs(database.pool)).toEqual([key(a!)]);
  });
});

it('a role that may only insert assignments, with a search_path of its own, still marks', async () => {
  const role = `upstream_${process.pid}`;
  await sql(`create role ${role}`);
  await sql(`grant insert on gift_persons to ${role}`);
  const client = await database.pool.connect();
  try {
    await client.query('begin');
    await client.query(`set local role ${role}`);
    await client.query(`set local search_path = pg_temp`);
    await client.query(
      `insert into public.gift_persons (gift_id, person_id, occasion_id, amount) values (1, $1, $2, 1)`,
      [a!.personId, a!.occasionId],
    );
    await client.query('commit');
  } finally {
    client.release();
    await sql(`drop owned by ${role}`);
    await sql(`drop role ${role}`);
  }
  expect(await markedPairs(database.pool)).toEqual([key(a!)]);
});

it('two open transactions mark the same pair without waiting for each other', async () => {
  const [first, second] = [await database.pool.connect(), await database.pool.connect()];
  await first.query('begin');
  await second.query(`begin; set local lock_timeout = '1s'`);
  await assign(first, a!, '1.00');
  await assign(second, a!, '2.00');
  await first.query('commit');
  await second.query('commit');
  first.release();
  second.release();
  expect(await countMarks(database.pool)).toBe(2);
});
