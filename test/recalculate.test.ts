import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Pair } from '../src/events/contract.ts';
import { recalculate, recalculateInTransaction } from '../src/recalculation/recalculate.ts';
import { inRecalculationTransaction } from '../src/recalculation/transaction.ts';
import { assign, countMarks, markedPairs, seedPairs, spent } from './support/budgets.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let pairs: Pair[];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  await sql('truncate persons, occasions, gifts, recalculation_failures cascade');
  await sql('truncate pending_recalculations');
  await view('amount');
  pairs = await seedPairs(database.pool, 4, 2);
});

const sql = async (text: string, values: unknown[] = []) => await database.pool.query(text, values);
const poolWith = (settings: pg.PoolConfig): pg.Pool =>
  new pg.Pool({ connectionString: database.worker.url, ...settings });
/** Makes the view anew, which its grants go with. */
const view = async (amount: string, also = 'true') =>
  await sql(
    `drop view budget_contributions;
     create view budget_contributions (person_id, occasion_id, amount) as
     select person_id, occasion_id, ${amount} from gift_persons
      where occasion_id is not null and amount is not null and ${also};
     grant select on budget_contributions to public`,
  );
const key = ({ personId, occasionId }: Pair): string => `${personId}-${occasionId}`;
const is = ({ personId, occasionId }: Pair): string =>
  `(person_id, occasion_id) = (${personId}, ${occasionId})`;
const outcomes = (results: readonly { outcome: string }[]): string[] =>
  results.map(({ outcome }) => outcome);

describe('a recalculation', () => {
  it('stores the sum, clears the marks, and says before and after', async () => {
    const [pair] = pairs;
    for (const amount of ['10.10', '0.05', '-3.00', null]) {
      await assign(database.upstream.pool, pair!, amount);
    }
    const [first] = await recalculate(database.worker.pool, [pair!]);
    expect(first).toEqual({ ...pair, outcome: 'changed', before: '0.00', after: '7.15' });
    expect(await spent(database.pool, pair!)).toBe('7.15');
    expect(await countMarks(database.pool)).toBe(0);
    const [second] = await recalculate(database.worker.pool, [pair!]);
    expect(second).toEqual({ ...pair, outcome: 'unchanged', before: '7.15', after: '7.15' });
  });

  it('writes only the rows whose total differs', async () => {
    const versions = async () =>
      (await sql('select xmin::text from person_occasions order by 1')).rows;
    await recalculate(database.worker.pool, pairs);
    const before = await versions();
    await recalculate(database.worker.pool, pairs);
    expect(await versions()).toEqual(before);
  });

  it('answers in the order it was asked, each pair with its own outcome', async () => {
    await assign(database.upstream.pool, pairs[1]!, '5.00');
    const unknown = { personId: '987654321', occasionId: '1' };
    const asked = [unknown, pairs[1]!, pairs[0]!];
    const results = await recalculate(database.worker.pool, asked);
    expect(results.map(key)).toEqual(asked.map(key));
    expect(outcomes(results)).toEqual(['missing', 'changed', 'unchanged']);
  });

  it('clears the marks and the failure of a pair that has no budget', async () => {
    const gone = { personId: '987654321', occasionId: '1' };
    await sql(`insert into pending_recalculations (person_id, occasion_id) values (987654321, 1)`);
    await sql(`insert into recalculation_failures values (987654321, 1, 'too much')`);
    expect(outcomes(await recalculate(database.worker.pool, [gone]))).toEqual(['missing']);
    expect(await countMarks(database.pool)).toBe(0);
    expect((await sql('select from recalculation_failures')).rowCount).toBe(0);
  });

  it('leaves the marks of other pairs alone', async () => {
    await assign(database.upstream.pool, pairs[0]!, '1.00');
    await assign(database.upstream.pool, pairs[1]!, '1.00');
    await recalculate(database.worker.pool, [pairs[0]!]);
    expect(await markedPairs(database.pool)).toEqual([key(pairs[1]!)]);
  });

  it('is READ COMMITTED and may write, whatever the defaults of the role', async () => {
    await view('amount', `current_setting('transaction_isolation') = 'read committed'`);
    await assign(database.upstream.pool, pairs[0]!, '4.00');
    const pool = poolWith({
      options: '-c default_transaction_isolation=serializable -c default_transaction_read_only=on',
    });
    try {
      const [result] = await recalculate(pool, [pairs[0]!]);
      expect(result).toMatchObject({ outcome: 'changed', after: '4.00' });
    } finally {
      await pool.end();
    }
  });
});

describe('whoever holds a budget row', () => {
  const holders: Readonly<Record<string, string>> = {
    'an editor who never commits': `update person_occasions set budget_notes = 'x' where`,
    'a session with FOR UPDATE': 'select from person_occasions where',
  };
  it.each(Object.keys(holders))('%s: busy at once, marked, and no other waits', async (who) => {
    const [held, ...others] = pairs;
    for (const pair of pairs) await assign(database.upstream.pool, pair, '2.00');
    await sql('delete from pending_recalculations');
    const holder = await database.pool.connect();
    try {
      const suffix = holders[who]!.startsWith('select') ? ' for update' : '';
      await holder.query(`begin; ${holders[who]} ${is(held!)}${suffix}`);
      const results = await recalculate(database.worker.pool, pairs);
      expect(outcomes(results)).toEqual(['busy', ...others.map(() => 'changed')]);
      expect(await markedPairs(database.pool)).toEqual([key(held!)]);
    } finally {
      await holder.query('rollback');
      holder.release();
    }
  });

  it('a prepared transaction: the same', async () => {
    const [held] = pairs;
    const name = `holder_${process.pid}`;
    const client = await database.pool.connect();
    await client.query(
      `begin; update person_occasions set budget_notes = 'x' where ${is(held!)};
       prepare transaction '${name}'`,
    );
    client.release();
    try {
      expect(outcomes(await recalculate(database.worker.pool, [held!]))).toEqual(['busy']);
    } finally {
      await sql(`rollback prepared '${name}'`);
    }
  });

  it('a writer of assignments of the pair holds up nothing and is not held up', async () => {
    const [pair] = pairs;
    const writer = await database.pool.connect();
    try {
      await writer.query(`begin; set local lock_timeout = '1s'`);
      await assign(writer, pair!, '8.00');
      await inRecalculationTransaction(database.worker.pool, async (client) => {
        const [result] = await recalculateInTransaction(client, [pair!]);
        expect(result).toMatchObject({ outcome: 'unchanged', after: '0.00' });
        await assign(writer, pair!, '9.00');
      });
    } finally {
      await writer.query('commit');
      writer.release();
    }
    expect(await markedPairs(database.pool)).toEqual([key(pair!)]);
  });
});

describe('a pair whose sum cannot be stored is listed, and harms no other', () => {
  const cases: Readonly<Record<string, { amount: string; reason: RegExp }>> = {
    'does not fit': { amount: '100000000', reason: /^the sum 100000000.00 does not fit/ },
    'does not fit below zero': { amount: '-100000000', reason: /-100000000.00 does not fit/ },
    'is not a number': { amount: `'NaN'::numeric`, reason: /^the sum NaN does not fit/ },
    'cannot be computed': { amount: '1 / (person_id - person_id)', reason: /division by zero/ },
  };
  it.each(Object.keys(cases))('%s', async (name) => {
    const { amount, reason } = cases[name]!;
    const [bad, ...good] = pairs;
    for (const pair of pairs) await assign(database.upstream.pool, pair, '1.00');
    await view(`case when ${is(bad!)} then ${amount} else amount end`);
    for (const attempts of [1, 2]) {
      const results = await recalculate(database.worker.pool, pairs);
      const others = good.map(() => (attempts === 1 ? 'changed' : 'unchanged'));
      expect(outcomes(results)).toEqual(['failed', ...others]);
      const { rows } = await sql('select * from recalculation_failures');
      expect(rows).toHaveLength(1);
      expect(rows[0]).toMatchObject({ person_id: bad!.personId, attempts });
      expect(rows[0].reason).toMatch(reason);
    }
    expect(await countMarks(database.pool)).toBe(0);
    for (const pair of good) expect(await spent(database.pool, pair)).toBe('1.00');
    await view('amount');
    expect(outcomes(await recalculate(database.worker.pool, pairs))[0]).toBe('changed');
    expect((await sql('select from recalculation_failures')).rowCount).toBe(0);
  });

  it('the largest and the smallest sum that fit are stored', async () => {
    await assign(database.upstream.pool, pairs[0]!, '99999999.99');
    await assign(database.upstream.pool, pairs[1]!, '-99999999.99');
    const results = await recalculate(database.worker.pool, pairs.slice(0, 2));
    expect(outcomes(results)).toEqual(['changed', 'changed']);
    expect(await spent(database.pool, pairs[0]!)).toBe('99999999.99');
    expect(await spent(database.pool, pairs[1]!)).toBe('-99999999.99');
  });

  it('a check of somebody else’s on the total is such a reason too', async () => {
    await sql('alter table person_occasions add constraint no_thirteen check (budget_spent <> 13)');
    try {
      await assign(database.upstream.pool, pairs[0]!, '13.00');
      await assign(database.upstream.pool, pairs[1]!, '12.00');
      const results = await recalculate(database.worker.pool, pairs.slice(0, 2));
      expect(outcomes(results)).toEqual(['failed', 'changed']);
      expect(results[0]).toMatchObject({ reason: expect.stringContaining('no_thirteen') });
    } finally {
      await sql('alter table person_occasions drop constraint no_thirteen');
    }
  });
});

it('a pair that is slower than the time limit is left to catch-up, the others are stored', async () => {
  const [slow, ...fast] = pairs;
  for (const pair of pairs) await assign(database.upstream.pool, pair, '6.00');
  await sql('delete from pending_recalculations');
  await view('amount', `case when ${is(slow!)} then pg_sleep(20) is not null else true end`);
  const pool = poolWith({
    statement_timeout: 300,
    options: '-c default_transaction_read_only=on',
  });
  try {
    const results = await recalculate(pool, pairs);
    expect(outcomes(results)).toEqual(['busy', ...fast.map(() => 'changed')]);
    expect(await markedPairs(database.pool)).toEqual([key(slow!)]);
  } finally {
    await pool.end();
  }
});

it('a table that is being migrated is nobody’s fault: the error is the caller’s to retry', async () => {
  const migration = await database.pool.connect();
  try {
    await migration.query('begin; lock table person_occasions in access exclusive mode');
    await expect(recalculate(database.worker.pool, pairs)).rejects.toMatchObject({ code: '55P03' });
  } finally {
    await migration.query('rollback');
    migration.release();
  }
  expect((await sql('select from recalculation_failures')).rowCount).toBe(0);
});
