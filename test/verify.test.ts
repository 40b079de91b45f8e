import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { verifyCommand } from '../src/commands/verify.ts';
import type { Queryable } from '../src/database.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import {
  type ComparedChunk,
  compareTotals,
  type Difference,
} from '../src/recalculation/compare.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';
import { runCommand } from './support/run-command.ts';

const OCCASIONS = 5;

let database: TestDatabase;
let contributionsView: string;

beforeAll(async () => {
  database = await createTestDatabase();
  const { rows } = await database.pool.query(
    `select pg_get_viewdef('budget_contributions'::regclass) as view`,
  );
  contributionsView = rows[0].view;
});

beforeEach(async () => {
  await database.pool.query(
    `truncate persons, occasions, gifts restart identity cascade;
     truncate recalculation_failures;
     create or replace view budget_contributions as ${contributionsView}`,
  );
  await forgetMarks();
});

afterAll(async () => {
  await database.close();
});

const catchUpOptions = () => ({
  pool: database.worker.pool,
  pairsMax: 500,
  pollMinMs: 1,
  pollMaxMs: 1,
  graceMs: () => 0,
});

async function catchUp(): Promise<void> {
  while (await catchUpOnce(catchUpOptions()));
}

const forgetMarks = () => database.pool.query('delete from pending_recalculations');

/** Persons × 5 occasions, each with two assignments of 10.00 and 2.50, all totals right. */
async function storeRight(persons: number): Promise<void> {
  await database.pool.query(
    `insert into gifts (name) values ('a gift');
     insert into persons (name) select 'p' || i from generate_series(1, ${persons}) i;
     insert into occasions (name) select 'o' || i from generate_series(1, ${OCCASIONS}) i;
     insert into person_occasions (person_id, occasion_id, budget_spent)
     select p.id, o.id, 12.50 from persons p, occasions o;
     insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1, b.person_id, b.occasion_id, a
       from person_occasions b, unnest(array[10, 2.5]) a`,
  );
  await forgetMarks();
}

/** Writes a total that is not the sum, and takes away the mark that says so. */
async function drift(personId: number, occasionId: number, stored: string): Promise<void> {
  await database.pool.query(
    'update person_occasions set budget_spent = $3 where person_id = $1 and occasion_id = $2',
    [personId, occasionId, stored],
  );
  await forgetMarks();
}

async function assign(personId: number, occasionId: number, amount: string): Promise<void> {
  await database.pool.query(
    'insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, $1, $2, $3)',
    [personId, occasionId, amount],
  );
}

/** Replaces what counts, so that the sum of this pair is a division by zero. */
async function failToSum(personId: number, occasionId: number): Promise<void> {
  const isOther = `(person_id <> ${personId} or occasion_id <> ${occasionId})`;
  await database.pool.query(
    `create or replace view budget_contributions as
     select person_id, occasion_id, (amount / ${isOther}::int)::numeric(10,2) as amount
       from gift_persons`,
  );
}

const verify = (...args: string[]) => runCommand(verifyCommand, database, ['verify', ...args]);

describe('verify', () => {
  test('all right: says how many, and exits with 0', async () => {
    await storeRight(3);
    expect(await verify()).toEqual({ out: '15 budgets checked, 0 wrong\n', err: '', exitCode: 0 });
  });

  test('no budgets at all', async () => {
    expect((await verify()).out).toBe('0 budgets checked, 0 wrong\n');
  });

  test('drift: lists stored and right, and exits with 1', async () => {
    await storeRight(3);
    await drift(2, 4, '12.49');
    await drift(3, 5, '0.00');
    expect(await verify()).toEqual({
      out:
        'wrong    person 2, occasion 4: stored 12.49, right 12.50\n' +
        'wrong    person 3, occasion 5: stored 0.00, right 12.50\n' +
        '15 budgets checked, 2 wrong\n',
      err: '',
      exitCode: 1,
    });
  });

  test('changes that are marked are pending, not wrong', async () => {
    await storeRight(3);
    await assign(1, 2, '-0.50');
    expect(await verify()).toMatchObject({
      out:
        'pending  person 1, occasion 2: stored 12.50, right 12.00\n' +
        '15 budgets checked, 0 wrong, 1 pending\n',
      exitCode: 0,
    });
    await catchUp();
    expect((await verify()).out).toBe('15 budgets checked, 0 wrong\n');
  });

  test('a total that cannot be stored is a failure, with its reason', async () => {
    await storeRight(3);
    await assign(2, 1, '99999999.99');
    await catchUp();
    expect(await verify()).toMatchObject({
      out:
        'failed   person 2, occasion 1: stored 12.50, right 100000012.49 ' +
        '(the sum 100000012.49 does not fit budget_spent, a numeric(10,2))\n' +
        '15 budgets checked, 0 wrong, 1 failed\n',
      exitCode: 0,
    });
  });

  test('a failure that was changed since is pending', async () => {
    await storeRight(3);
    await assign(2, 1, '99999999.99');
    await catchUp();
    await assign(2, 1, '-99999990.00');
    expect((await verify()).out).toContain('15 budgets checked, 0 wrong, 1 pending\n');
    await catchUp();
    expect((await verify()).out).toBe('15 budgets checked, 0 wrong\n');
  });

  test('a mark for everything makes all behind its key pending, and none before', async () => {
    await storeRight(4);
    for (const person of [1, 2, 3]) await drift(person, 3, '1.00');
    await database.pool.query(
      `insert into pending_recalculations (everything, person_id, occasion_id) values (true, 2, 3)`,
    );
    expect((await verify()).out).toBe(
      'wrong    person 1, occasion 3: stored 1.00, right 12.50\n' +
        'wrong    person 2, occasion 3: stored 1.00, right 12.50\n' +
        'pending  person 3, occasion 3: stored 1.00, right 12.50\n' +
        '20 budgets checked, 2 wrong, 1 pending\n',
    );
    await database.pool.query('insert into pending_recalculations (everything) values (true)');
    expect(await verify()).toMatchObject({
      out: expect.stringContaining('20 budgets checked, 0 wrong, 3 pending\n'),
      exitCode: 0,
    });
    await catchUp();
    expect((await verify()).out).toBe('20 budgets checked, 0 wrong\n');
  });

  test('it asks the view what counts', async () => {
    await storeRight(1);
    await database.pool.query(
      `create or replace view budget_contributions as
       select person_id, occasion_id, (amount * 2)::numeric(10,2) as amount from gift_persons`,
    );
    expect((await verify()).out).toContain('right 25.00\n5 budgets checked, 5 wrong\n');
  });

  test('a pair whose sum cannot be computed is reported, and hides no other', async () => {
    await storeRight(500);
    await failToSum(77, 3);
    await drift(77, 2, '1.00');
    await drift(77, 4, '1.00');
    expect(await verify()).toMatchObject({
      out:
        'wrong    person 77, occasion 2: stored 1.00, right 12.50\n' +
        'wrong    person 77, occasion 3: stored 12.50, right unknown (division by zero)\n' +
        'wrong    person 77, occasion 4: stored 1.00, right 12.50\n' +
        '2500 budgets checked, 3 wrong\n',
      exitCode: 1,
    });
  });

  test('as JSON', async () => {
    await storeRight(3);
    const counts = { wrong: 0, pending: 0, failed: 0 };
    expect(JSON.parse((await verify('--format', 'json')).out)).toEqual({
      differences: [],
      checked: 15,
      ...counts,
    });
    await drift(2, 4, '12.49');
    await assign(3, 1, '1.00');
    const { out, exitCode } = await verify('--format', 'json');
    expect(JSON.parse(out)).toEqual({
      differences: [
        difference('2', '4', '12.49', '12.50', 'wrong'),
        difference('3', '1', '12.50', '13.50', 'pending'),
      ],
      checked: 15,
      ...counts,
      wrong: 1,
      pending: 1,
    });
    expect(exitCode).toBe(1);
  });

  test('tells how far it is, on standard error', async () => {
    await storeRight(300);
    const { out, err } = await runCommand(
      (context) => verifyCommand(context, { progressEveryMs: 0 }),
      database,
      ['verify'],
    );
    expect(out).toBe('1500 budgets checked, 0 wrong\n');
    expect(err).toBe(
      'checked 1000 of 1500 budgets, 0 wrong so far\nchecked 1500 of 1500 budgets, 0 wrong so far\n',
    );
  });

  test('an interruption ends it, without a verdict', async () => {
    await storeRight(300);
    await drift(1, 1, '1.00');
    const run = await runCommand(verifyCommand, database, ['verify'], (interrupt) =>
      interrupt.abort(),
    );
    expect(run.exitCode).toBe(130);
    expect(run.out).toBe('wrong    person 1, occasion 1: stored 1.00, right 12.50\n');
    expect(run.err).toBe('interrupted: 1000 budgets checked, 1 wrong\n');
  });
});

function difference(
  personId: string,
  occasionId: string,
  stored: string,
  right: string,
  state: Difference['state'],
): Difference {
  return { personId, occasionId, stored, right, state, reason: null };
}

describe('comparing in chunks', () => {
  const compareAll = async (...args: Parameters<typeof compareTotals>) =>
    await Array.fromAsync(compareTotals(...args));
  const found = (chunks: readonly ComparedChunk[]) =>
    chunks.flatMap((chunk) => chunk.differences.map((d) => `${d.personId}-${d.occasionId}`));

  function recordStatements() {
    const sent: [text: string, values: unknown[] | undefined][] = [];
    const recording: Queryable = {
      query: async (text, values) => {
        sent.push([text, values]);
        return await database.reader.pool.query(text, values);
      },
    };
    return { recording, sent };
  }

  test('looks at every budget once, the first and last of each chunk too', async () => {
    await storeRight(500); // 2,500 budgets; 200 persons are a chunk of 1,000
    const wrong = [
      [1, 1],
      [200, 5],
      [201, 1],
      [400, 5],
      [401, 1],
      [500, 5],
    ] as const;
    for (const [person, occasion] of wrong) await drift(person, occasion, '-1.00');
    const expected = wrong.map((pair) => pair.join('-'));
    const chunks = await compareAll(database.reader.pool);
    expect(chunks.map((chunk) => chunk.checked)).toEqual([1_000, 1_000, 500]);
    expect(found(chunks)).toEqual(expected);
    for (const pairsMax of [1_250, 2_500, 9_999, 7]) {
      const others = await compareAll(database.reader.pool, { pairsMax });
      expect(found(others)).toEqual(expected);
      expect(others.reduce((sum, chunk) => sum + chunk.checked, 0)).toBe(2_500);
    }
  });

  test('goes on behind a pair', async () => {
    await storeRight(500);
    await drift(200, 5, '1.00');
    await drift(300, 3, '1.00');
    const [first] = await compareAll(database.reader.pool);
    expect(first!.last).toEqual({ personId: '200', occasionId: '5' });
    const rest = await compareAll(database.reader.pool, { after: first!.last });
    expect(found(rest)).toEqual(['300-3']);
    expect(rest.map((chunk) => chunk.checked)).toEqual([1_000, 500]);
  });

  test('is one statement a chunk, whose cost does not grow with the tables', async () => {
    await storeRight(2_000);
    await database.pool.query('vacuum analyze');
    const { recording, sent } = recordStatements();
    await compareTotals(recording, { after: { personId: '1000', occasionId: '2' } }).next();
    expect(sent).toHaveLength(1);
    const [text, values] = sent[0]!;
    const { rows } = await database.pool.query(`explain ${text}`, values);
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
    expect(plan).toContain('Index Scan using person_occasions_pkey');
    expect(plan).toContain('Index Only Scan using idx_gift_person_contribution');
    // PostgreSQL 15 sorts the chunk at the end, where 18 knows that it is in order.
    expect(plan).not.toMatch(/Seq Scan on (gift_persons|person_occasions)|-> +Sort|Hash Join/);
  }, 60_000);

  test('looks for a pair whose sum fails by halving, and goes on in full chunks', async () => {
    await storeRight(1_000);
    await failToSum(77, 3);
    const { recording, sent } = recordStatements();
    const chunks = await compareAll(recording);
    expect(found(chunks)).toEqual(['77-3']);
    expect(chunks.reduce((sum, chunk) => sum + chunk.checked, 0)).toBe(5_000);
    expect(sent.length).toBeLessThan(5 + 4 * Math.log2(1_000));
    // As they were before the fault, up to the rest at the end.
    expect(chunks.at(-2)!.checked).toBe(1_000);
  }, 60_000);

  test('never takes a change that is on its way for a wrong total', async () => {
    await storeRight(20);
    const stopping = new AbortController();
    const { signal } = stopping;
    const write = async (seed: number): Promise<void> => {
      for (let turn = seed; !signal.aborted; turn += 7) {
        await assign((turn % 20) + 1, (turn % OCCASIONS) + 1, `${turn % 9}.50`);
      }
    };
    const recalculate = async (): Promise<void> => {
      while (!signal.aborted) await catchUpOnce(catchUpOptions(), signal);
    };
    const others = Promise.all([write(1), write(2), recalculate(), recalculate()]);
    const states: string[] = [];
    try {
      for (let round = 0; round < 150; round += 1) {
        const chunks = await compareAll(database.reader.pool, { pairsMax: 60 });
        states.push(...chunks.flatMap((chunk) => chunk.differences.map((d) => d.state)));
      }
    } finally {
      stopping.abort();
      await others;
    }
    expect(states.length).toBeGreaterThan(0);
    expect(new Set(states)).toEqual(new Set(['pending']));
    await catchUp();
    expect(found(await compareAll(database.reader.pool))).toEqual([]);
  });
});
