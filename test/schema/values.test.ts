import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Pair } from '../../src/events/contract.ts';
import { seedPairs } from '../support/budgets.ts';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

const CHECK_VIOLATION = '23514';
const OUT_OF_RANGE = '22003';

let database: TestDatabase;
let pair: Pair;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
});

const setBudget = async (column: string, value: string | null) =>
  await database.pool.query(
    `update person_occasions set ${column} = $3 where person_id = $1 and occasion_id = $2
     returning ${column} as stored`,
    [pair.personId, pair.occasionId, value],
  );
const setAmount = async (value: string | null) =>
  await database.pool.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     values ((select min(id) from gifts), $1, $2, $3) returning amount as stored`,
    [pair.personId, pair.occasionId, value],
  );

describe('what is refused', () => {
  it.each([
    ['budget_amount', 'NaN', CHECK_VIOLATION],
    ['budget_spent', 'NaN', CHECK_VIOLATION],
    ['budget_amount', 'Infinity', OUT_OF_RANGE],
    ['budget_spent', '-Infinity', OUT_OF_RANGE],
    ['budget_amount', '-0.01', CHECK_VIOLATION],
    ['budget_amount', '100000000', OUT_OF_RANGE],
    ['budget_spent', '99999999.995', OUT_OF_RANGE],
    ['budget_spent', null, '23502'],
    ['budget_currency', null, '23502'],
    ['budget_currency', 'usd', CHECK_VIOLATION],
    ['budget_currency', 'US', CHECK_VIOLATION],
    ['budget_currency', '', CHECK_VIOLATION],
    ['budget_currency', 'USD\n', '22001'],
    ['budget_currency', 'DOLLAR', '22001'],
  ])('%s %s', async (column, value, code) => {
    await expect(setBudget(column, value)).rejects.toMatchObject({ code });
  });

  it('an amount that is not a number, or too large', async () => {
    await expect(setAmount('NaN')).rejects.toMatchObject({ code: CHECK_VIOLATION });
    await expect(setAmount('Infinity')).rejects.toMatchObject({ code: OUT_OF_RANGE });
    await expect(setAmount('100000000')).rejects.toMatchObject({ code: OUT_OF_RANGE });
  });

  it('an assignment for a pair without a budget, or for nobody, or of no gift', async () => {
    const insert = `insert into gift_persons (gift_id, person_id, occasion_id) values ($1, $2, $3)`;
    const { rows } = await database.pool.query('select min(id)::text as gift from gifts');
    const assignments = [
      [rows[0].gift, pair.personId, '-1'],
      [rows[0].gift, '-1', null],
      ['-1', pair.personId, null],
    ];
    for (const assignment of assignments) {
      await expect(database.pool.query(insert, assignment)).rejects.toMatchObject({
        code: '23503',
      });
    }
  });

  it('a second budget for the same pair, and a mark that names no pair', async () => {
    await expect(
      database.pool.query('insert into person_occasions values ($1, $2)', [
        pair.personId,
        pair.occasionId,
      ]),
    ).rejects.toMatchObject({ code: '23505' });
    await expect(
      database.pool.query('insert into pending_recalculations (person_id) values (1)'),
    ).rejects.toMatchObject({ code: CHECK_VIOLATION });
  });
});

describe('what is taken', () => {
  it.each([
    ['budget_amount', '0', '0.00'],
    ['budget_amount', '99999999.99', '99999999.99'],
    ['budget_amount', null, null],
    ['budget_spent', '-99999999.99', '-99999999.99'],
    ['budget_currency', 'EUR', 'EUR'],
  ])('%s %s', async (column, value, stored) => {
    expect((await setBudget(column, value)).rows).toEqual([{ stored }]);
  });

  it('an unknown amount, a refund, and an assignment for no occasion', async () => {
    expect((await setAmount(null)).rows).toEqual([{ stored: null }]);
    expect((await setAmount('-5')).rows).toEqual([{ stored: '-5.00' }]);
    await database.pool.query(
      `insert into gift_persons (gift_id, person_id, amount) select min(id), $1, 5 from gifts`,
      [pair.personId],
    );
  });

  it('a key that the writer chooses, as well as one that the database does', async () => {
    await database.pool.query(`insert into persons (id, name) values (9000000001, 'chosen')`);
    const { rows } = await database.pool.query(
      `insert into persons (name) values ('given') returning id`,
    );
    expect(Number(rows[0].id)).toBeLessThan(9_000_000_001);
  });
});
