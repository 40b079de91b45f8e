import { parse } from 'csv-parse/sync';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { failuresCommand } from '../src/commands/failures.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { markedPairs } from './support/budgets.ts';
import { runCommand } from './support/run-command.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});

/** Ada, Ben and Cleo, for Christmas and Eid; one gift. */
beforeEach(async () => {
  await database.pool.query(
    `truncate persons, occasions, gifts restart identity cascade;
     truncate recalculation_failures;
     insert into gifts (name) values ('yacht');
     insert into persons (name) values ('Ada'), ('Ben'), ('Cleo');
     insert into occasions (name) values ('Christmas'), ('Eid');
     insert into person_occasions (person_id, occasion_id)
     select p.id, o.id from persons p, occasions o;
     delete from pending_recalculations`,
  );
});

afterAll(async () => {
  await database.close();
});

async function catchUp(): Promise<void> {
  const { pool } = database;
  const options = { pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 };
  while (await catchUpOnce(options));
}

/** Two assignments whose sum does not fit, for each pair. */
async function fail(...pairs: [personId: number, occasionId: number][]): Promise<void> {
  for (const [personId, occasionId] of pairs) {
    await database.pool.query(
      `insert into gift_persons (gift_id, person_id, occasion_id, amount)
       values (1, $1, $2, 99999999.99), (1, $1, $2, 0.01)`,
      [personId, occasionId],
    );
  }
  await catchUp();
}

/** Makes the sum fit again behind the triggers, so that nothing but a retry would try it. */
async function mendSilently(personId: number, occasionId: number): Promise<void> {
  await database.pool.query(
    `delete from gift_persons
      where amount > 1 and person_id = ${personId} and occasion_id = ${occasionId};
     delete from pending_recalculations`,
  );
}

const failures = (...args: string[]) =>
  runCommand(failuresCommand, database, ['failures', ...args]);

async function rowsOf(...args: string[]) {
  const run = await failures('--format', 'json', ...args);
  return { rows: JSON.parse(run.out) as Record<string, unknown>[], exitCode: run.exitCode };
}

const listed = async (): Promise<string[]> =>
  (await rowsOf()).rows.map((row) => `${row.person}-${row.occasion}`);

const REASON = 'the sum 100000000.00 does not fit budget_spent, a numeric(10,2)';

describe('the list', () => {
  test('none: says so', async () => {
    expect(await failures()).toEqual({ out: 'No failures.\n', err: '', exitCode: 0 });
    expect((await failures('--format', 'csv')).out.split('\n')).toHaveLength(2);
    expect((await failures('--retry')).out).toBe('No failures.\n');
  });

  test('names, sum, attempts, since when and why', async () => {
    await fail([2, 1], [1, 2]);
    await fail([2, 1]);
    const { out, exitCode } = await failures();
    expect(exitCode).toBe(0);
    const [header, line, ada, ben, empty, tally] = out.split('\n');
    expect(header).toMatch(
      /^person {2}person id {2}occasion {3}occasion id {3,}total {2}attempts {2}first failed at +last failed at +reason$/,
    );
    expect(line).toMatch(/^─/);
    expect(ada).toMatch(/^Ada +1 {2}Eid +2 {2}100000000\.00 +1 {2}20\S+Z {2}20\S+Z {2}the sum/);
    expect(ben).toMatch(/^Ben +2 {2}Christmas +1 {2}200000000\.00 +2 {2}20/);
    expect([empty, tally]).toEqual(['', '2 failures']);
  });

  test('as JSON and as CSV', async () => {
    await fail([1, 2]);
    const expected = {
      person: 'Ada',
      person_id: '1',
      occasion: 'Eid',
      occasion_id: '2',
      total: '100000000.00',
      attempts: 1,
      first_failed_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      last_failed_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      reason: REASON,
    };
    const { rows } = await rowsOf();
    expect(rows).toEqual([expected]);
    const age = Date.now() - Date.parse(rows[0]!.first_failed_at as string);
    expect(Math.abs(age)).toBeLessThan(60_000);
    const csv = (await failures('--format', 'csv')).out;
    expect(parse(csv, { columns: true })).toEqual([{ ...expected, attempts: '1' }]);
  });

  test('of a person, for an occasion, for both; nobody of that name is an error', async () => {
    await fail([1, 1], [1, 2], [2, 1]);
    const persons = async (...args: string[]) =>
      (await rowsOf(...args)).rows.map((row) => `${row.person}-${row.occasion}`);
    expect(await persons('--person', 'Ada')).toEqual(['Ada-Christmas', 'Ada-Eid']);
    expect(await persons('--occasion', '1')).toEqual(['Ada-Christmas', 'Ben-Christmas']);
    expect(await persons('--person', '1', '--occasion', 'Eid')).toEqual(['Ada-Eid']);
    expect(await persons('--person', 'Cleo')).toEqual([]);
    await expect(failures('--person', 'ad')).rejects.toThrow(
      'no person has the name or the id "ad"; did you mean "Ada"?',
    );
  });

  test('more than a chunk of them: each once', async () => {
    await database.pool.query(
      `insert into recalculation_failures (person_id, occasion_id, reason)
       select 1000 + i, 7, 'why' from generate_series(1, 1200) i`,
    );
    const { rows } = await rowsOf();
    expect(new Set(rows.map((row) => row.person_id)).size).toBe(1_200);
    expect(rows).toHaveLength(1_200);
    expect(rows[0]).toMatchObject({ person: null, occasion: null, total: null });
  });
});

describe('tried again', () => {
  test('those that fit now are stored, those that do not still fail', async () => {
    await fail([1, 1], [2, 1]);
    await mendSilently(1, 1);
    const { rows, exitCode } = await rowsOf('--retry');
    expect(exitCode).toBe(1);
    expect(rows).toMatchObject([
      { person: 'Ada', outcome: 'stored', stored: '0.01', reason: null },
      { person: 'Ben', outcome: 'failed', stored: null, reason: REASON },
    ]);
    expect(await listed()).toEqual(['Ben-Christmas']);
    const [ben] = (await rowsOf()).rows;
    expect(ben).toMatchObject({ attempts: 2 });
    const { out } = await failures('--retry');
    expect(out).toMatch(
      /\nBen +2 {2}Christmas +1 {2}failed +– {2}the sum 100000000\.00 .*\n\n1 failed\n$/,
    );
    await mendSilently(2, 1);
    expect(await failures('--retry')).toMatchObject({
      out: expect.stringContaining('\n\n1 stored\n'),
      exitCode: 0,
    });
    expect((await failures('--retry')).out).toBe('No failures.\n');
  });

  test('a total that is right already is taken off the list', async () => {
    await database.pool.query(
      `insert into recalculation_failures (person_id, occasion_id, reason) values (1, 1, 'once')`,
    );
    expect((await rowsOf('--retry')).rows).toMatchObject([{ outcome: 'stored', stored: '0.00' }]);
    expect(await listed()).toEqual([]);
  });

  test('one whose row somebody holds is marked, and left to catch-up', async () => {
    await fail([1, 1]);
    await mendSilently(1, 1);
    const holder = await database.pool.connect();
    try {
      await holder.query('begin');
      await holder.query('select from person_occasions where person_id = 1 for update');
      const { rows, exitCode } = await rowsOf('--retry');
      expect([rows[0]!.outcome, exitCode]).toEqual(['marked', 0]);
      expect(await markedPairs(database.pool)).toEqual(['1-1']);
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    await catchUp();
    expect(await listed()).toEqual([]);
  });

  test('one whose budget is gone is taken off the list', async () => {
    await fail([1, 1]);
    await database.pool.query(
      'delete from persons where id = 1; delete from pending_recalculations',
    );
    const { rows, exitCode } = await rowsOf('--retry');
    expect(exitCode).toBe(0);
    expect(rows).toMatchObject([{ person: null, person_id: '1', outcome: 'gone' }]);
    expect(await listed()).toEqual([]);
  });

  test('only those that were asked for', async () => {
    await fail([1, 1], [2, 1]);
    await mendSilently(1, 1);
    await mendSilently(2, 1);
    expect((await rowsOf('--retry', '--person', 'Ben')).rows).toMatchObject([{ person: 'Ben' }]);
    expect(await listed()).toEqual(['Ada-Christmas']);
  });

  test('many: each once, also where they go on to fail', async () => {
    await database.pool.query(
      `insert into persons (name) select 'p' || i from generate_series(1, 1100) i;
       insert into person_occasions (person_id, occasion_id)
       select id, 1 from persons where name like 'p%';
       insert into gift_persons (gift_id, person_id, occasion_id, amount)
       select 1, id, 1, a from persons, unnest(array[99999999.99, 0.01]) a where name like 'p%'`,
    );
    await catchUp();
    // Some were tried twice: a pair has two marks, and catch-up takes two pages of marks at once.
    await database.pool.query('update recalculation_failures set attempts = 1');
    const { rows } = await rowsOf('--retry');
    expect(rows).toHaveLength(1_100);
    expect(new Set(rows.map((row) => row.person)).size).toBe(1_100);
    const { rows: attempts } = await database.pool.query(
      'select distinct attempts from recalculation_failures',
    );
    expect(attempts).toEqual([{ attempts: 2 }]);
  });

  test('an interruption ends it, and tells no tally', async () => {
    await fail([1, 1]);
    const run = await runCommand(failuresCommand, database, ['failures', '--retry'], (interrupt) =>
      interrupt.abort(),
    );
    expect(run.exitCode).toBe(130);
    expect(run.out).not.toContain('1 failed');
  });
});
