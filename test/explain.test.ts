import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { explainCommand } from '../src/commands/explain.ts';
import type { Queryable } from '../src/database.ts';
import { findRowHolders } from '../src/operations/row-holders.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { eventually } from './support/budgets.ts';
import { type CommandStores, runCommand } from './support/run-command.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const PAIR = { personId: '1', occasionId: '1' };

let database: TestDatabase;
let contributionsView: string;

beforeAll(async () => {
  database = await createTestDatabase();
  const { rows } = await database.pool.query(
    `select pg_get_viewdef('budget_contributions'::regclass) as view`,
  );
  contributionsView = rows[0].view;
});

/** Ada's budget for Christmas: a book of 10.00 and a ball of 2.50, stored right. */
beforeEach(async () => {
  await database.pool.query(
    `truncate persons, occasions, gifts restart identity cascade;
     truncate recalculation_failures;
     create or replace view budget_contributions as ${contributionsView};
     insert into gifts (name) values ('book'), ('ball');
     insert into persons (name) values ('Ada'), ('Ben');
     insert into occasions (name) values ('Christmas');
     insert into person_occasions (person_id, occasion_id, budget_spent)
     values (1, 1, 12.50), (2, 1, 0);
     insert into gift_persons (gift_id, person_id, occasion_id, amount)
     values (1, 1, 1, 10), (2, 1, 1, 2.5)`,
  );
  await forgetMarks();
});

afterAll(async () => {
  await database.close();
});

const forgetMarks = () => database.pool.query('delete from pending_recalculations');

async function catchUp(): Promise<void> {
  const { pool } = database;
  const options = { pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 };
  while (await catchUpOnce(options));
}

const assign = (amount: string | null, db: Queryable = database.pool) =>
  db.query(
    'insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, 1, 1, $1)',
    [amount],
  );

const explain = (person = 'Ada', occasion = 'Christmas', ...args: string[]) =>
  explainOn(database, person, occasion, ...args);

const explainOn = (stores: CommandStores, person: string, occasion: string, ...args: string[]) =>
  runCommand(explainCommand, stores, [
    'explain',
    '--person',
    person,
    '--occasion',
    occasion,
    ...args,
  ]);

async function explained(
  stores: CommandStores = database,
): Promise<{ sentences: string[]; [key: string]: unknown }> {
  return JSON.parse((await explainOn(stores, 'Ada', 'Christmas', '--format', 'json')).out);
}

/** A session of its own, such as a psql that somebody left open. */
async function whileOpen<T>(
  name: string,
  statements: readonly string[],
  work: (client: pg.Client, pid: number) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: database.url, application_name: name });
  client.on('error', () => {});
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
    return await work(client, (client as unknown as { processID: number }).processID);
  } finally {
    await client.end();
  }
}

const HOLD = `update person_occasions set budget_notes = 'mine' where person_id = 1`;

describe('explain', () => {
  test('a total that is right', async () => {
    expect(await explain()).toEqual({
      out: `Ada (person 1), Christmas (occasion 1)

stored       12.50
right        12.50
assignments  2, 12.50 in all
pending      nothing
failure      none
row          free

assignment  gift  amount
──────────  ────  ──────
         1  book   10.00
         2  ball    2.50

The stored total is right and nothing is pending.
`,
      err: '',
      exitCode: 0,
    });
  });

  test('by ids, as by names', async () => {
    expect(await explain('1', '1')).toEqual(await explain());
  });

  test('a change that is pending: how long, and what will be stored', async () => {
    await assign('2.50');
    await assign(null);
    await database.pool.query(
      `update pending_recalculations set marked_at = clock_timestamp() - interval '3.2 s'`,
    );
    const { out, exitCode } = await explain();
    expect(exitCode).toBe(0);
    expect(out).toMatch(/^stored {7}12\.50\nright {8}15\.00\n/m);
    expect(out).toContain('assignments  4, 1 of them without an amount, 15.00 in all\n');
    expect(out).toMatch(/^pending {6}2 marks, the oldest 3\.\d s old\n/m);
    expect(out).toMatch(
      /\n\nA change is pending for 3\.\d s: catch-up will store 15\.00\. If this stays, is a worker running\? "gift-budgets start" runs one\.\n$/,
    );
    await catchUp();
    expect((await explain()).out).toContain('stored       15.00\n');
  });

  test('a mark for everything counts where it stands for this budget, and only there', async () => {
    await database.pool.query(
      `insert into pending_recalculations (everything, person_id, occasion_id) values (true, 1, 1)`,
    );
    expect(await explained()).toMatchObject({ state: 'right', everythingMarkSeconds: null });
    const { out } = await explain('Ben');
    expect(out).toMatch(/^pending {6}a mark for everything, 0\.\d s old\n/m);
    expect(out).toContain('and the stored total is right as it is: catch-up will see that.');
  });

  test('drift: says so, and what repairs it', async () => {
    await database.pool.query('update person_occasions set budget_spent = 9 where person_id = 1');
    await forgetMarks();
    const { out, exitCode } = await explain();
    expect(exitCode).toBe(1);
    expect(out).toContain('stored       9.00\nright        12.50\n');
    expect(out).toContain(
      'Stored and right differ and nothing is pending: this is drift, made behind the triggers ' +
        '(by a restore, say); "gift-budgets repair" repairs it.\n',
    );
  });

  test('a sum that does not fit: the failure, since when, and what mends it', async () => {
    await assign('99999999.99');
    await catchUp();
    const { out, exitCode } = await explain();
    expect(exitCode).toBe(1);
    expect(out).toMatch(
      /^failure {6}the sum 100000012\.49 does not fit budget_spent, a numeric\(10,2\) \(1 attempt, first \d s ago\)$/m,
    );
    expect(out).toContain(
      'The sum 100000012.49 does not fit (from -99999999.99 to 99999999.99 can be stored), ' +
        'so the stored total stays 12.50 until the assignments change',
    );
    await assign('-99999999.99');
    expect(await explained()).toMatchObject({ state: 'pending', right: '12.50', fits: true });
  });

  test('a sum that cannot be computed: the error, and all the rest', async () => {
    await database.pool.query(
      `create or replace view budget_contributions as
       select person_id, occasion_id, (amount / (person_id - 1))::numeric(10,2) as amount
         from gift_persons`,
    );
    const { out, exitCode } = await explain();
    expect(exitCode).toBe(1);
    expect(out).toContain('right        unknown: division by zero\n');
    expect(out).toContain('assignments  2, 12.50 in all\n');
    expect(out).toContain('The sum cannot be computed (division by zero), so the stored total');
  });

  test('another rule of what counts: says that it differs from the assignments', async () => {
    await database.pool.query(
      `create or replace view budget_contributions as
       select person_id, occasion_id, (amount * 2)::numeric(10,2) as amount from gift_persons`,
    );
    const { out } = await explain();
    expect(out).toContain('right        25.00\nassignments  2, 12.50 in all\n');
    expect(out).toContain(
      'What counts differs from the assignments: 2 contributions of 25.00 in all, so the view ' +
        'budget_contributions was replaced by a rule of your own.\n',
    );
  });

  test('the first fifty assignments, and how many more', async () => {
    for (let i = 0; i < 51; i += 1) await assign('1');
    const { out } = await explain();
    expect(out).toContain('assignments  53, 63.50 in all\n');
    expect(out).toContain('\n        50  book    1.00\n… and 3 more\n');
  });

  test('a control character in a name moves no cursor', async () => {
    await database.pool.query(`update persons set name = E'A\\x1b[2Jda\\n' where id = 1`);
    expect((await explain('1')).out).toContain('A [2Jda  (person 1), Christmas');
  });

  test('as JSON', async () => {
    expect(await explained()).toEqual({
      state: 'right',
      ...PAIR,
      person: 'Ada',
      occasion: 'Christmas',
      stored: '12.50',
      right: '12.50',
      rightError: null,
      fits: true,
      contributions: 2,
      assignments: 2,
      assignmentsWithAmount: 2,
      assignmentsSum: '12.50',
      firstAssignments: [
        { id: '1', gift: 'book', amount: '10.00' },
        { id: '2', gift: 'ball', amount: '2.50' },
      ],
      marks: 0,
      oldestMarkSeconds: null,
      everythingMarkSeconds: null,
      failure: null,
      row: { state: 'free', holders: [], why: null },
      sentences: ['The stored total is right and nothing is pending.'],
    });
  });
});

describe('who holds the row', () => {
  test('a session that was left open: pid, program, state, how long, and how to end it', async () => {
    await whileOpen('psql', ['begin', HOLD], async (_, pid) => {
      await assign('1.00');
      // The worker's role sees who it is, but not what he does.
      const { row: seen } = await explained();
      const hidden = { pid, applicationName: 'psql', state: null, query: null };
      expect(seen).toMatchObject({ state: 'held', holders: [hidden] });
      const { sentences, row } = await explained({ pool: database.pool });
      expect(row).toEqual({
        state: 'held',
        why: null,
        holders: [
          {
            kind: 'session',
            pid,
            applicationName: 'psql',
            state: 'idle in transaction',
            transactionSeconds: expect.any(Number),
            query: HOLD,
          },
        ],
      });
      expect(sentences[1]).toMatch(
        /^The row is held by pid \d+ \(psql, idle in transaction, its transaction 00:00:0\d old\): nothing can be stored until it ends; SELECT pg_terminate_backend\(\d+\) ends it\.$/,
      );
      expect((await explainOn({ pool: database.pool }, 'Ada', 'Christmas')).out).toContain(
        `row          held by pid ${pid} (${HOLD})\n`,
      );
    });
    expect((await findRowHolders(database.pool, PAIR)).state).toBe('free');
  });

  test.each([
    ['a lock without a change', 'select from person_occasions where person_id = 1 for update'],
    ['a shared lock', 'select from person_occasions where person_id = 1 for share'],
    ['a delete', 'delete from person_occasions where person_id = 1'],
    ['a change of its key', 'update person_occasions set occasion_id = 1 where person_id = 1'],
  ])('%s', async (_, statement) => {
    await whileOpen('holder', ['begin', statement], async (_client, pid) => {
      const { holders } = await findRowHolders(database.pool, PAIR);
      expect(holders).toMatchObject([{ pid, applicationName: 'holder' }]);
    });
  });

  test.each([
    ['a savepoint', ['savepoint a', HOLD, 'savepoint b']],
    ['a savepoint that was released', ['savepoint a', HOLD, 'release a']],
  ])('%s of a session', async (_, statements) => {
    await whileOpen('holder', ['begin', ...statements], async (_client, pid) => {
      const { holders } = await findRowHolders(database.pool, PAIR);
      expect(holders).toMatchObject([{ pid }]);
    });
  });

  test('an assignment that is not committed yet holds up nobody', async () => {
    await whileOpen('writer', ['begin'], async (client) => {
      await assign('1.00', client);
      expect(await findRowHolders(database.pool, PAIR)).toEqual({
        state: 'free',
        holders: [],
        why: null,
      });
    });
  });

  test.each([
    ['', [HOLD]],
    [', also by a savepoint that was released', ['savepoint a', HOLD, 'release a']],
  ])('of several the one in the way is named, not those who wait%s', async (_, statements) => {
    await whileOpen('writer', ['begin'], async (writer) => {
      await assign('1.00', writer);
      await whileOpen('holder', ['begin', ...statements], async (holder, pid) => {
        await whileOpen('waiter', [], async (waiter) => {
          const waiting = waiter.query(HOLD);
          await eventually(
            async () => (await database.pool.query('select from pg_locks where not granted')).rows,
            (rows) => rows.length > 0,
          );
          const { holders } = await findRowHolders(database.pool, PAIR);
          await holder.query('rollback');
          await waiting;
          expect(holders).toMatchObject([{ pid, applicationName: 'holder' }]);
        });
      });
    });
  });

  test('two who share a lock are both named', async () => {
    const share = 'select from person_occasions where person_id = 1 for share';
    await whileOpen('one', ['begin', share], async () => {
      await whileOpen('two', ['begin', share], async () => {
        const { holders } = await findRowHolders(database.pool, PAIR);
        const names = holders.map((holder) => holder.kind === 'session' && holder.applicationName);
        expect(new Set(names)).toEqual(new Set(['one', 'two']));
      });
    });
  });

  test.each([
    ['', [HOLD]],
    [', in a savepoint of it', ['savepoint a', HOLD]],
    [', in a released savepoint of it', ['savepoint a', HOLD, 'release a']],
  ])('a prepared transaction%s: its name, and how to end it', async (_, statements) => {
    const prepare = `prepare transaction 'it''s mine'`;
    await whileOpen('two-phase', ['begin', ...statements, prepare], async () => {});
    try {
      const { sentences, row } = await explained();
      expect(row).toMatchObject({
        state: 'held',
        holders: [{ kind: 'prepared', gid: "it's mine" }],
      });
      expect(sentences.at(-1)).toMatch(
        /^The row is held by the prepared transaction 'it''s mine' for 00:00:0\d: nothing can be stored until it ends; COMMIT PREPARED 'it''s mine' or ROLLBACK PREPARED 'it''s mine' ends it\.$/,
      );
    } finally {
      await database.pool.query(`rollback prepared 'it''s mine'`);
    }
  });

  test('a role that may not lock the row is told that it cannot be tried', async () => {
    expect(await findRowHolders(database.reader.pool, PAIR)).toEqual({
      state: 'unknown',
      holders: [],
      why: 'permission denied for table person_occasions',
    });
  });
});

describe('whose budget', () => {
  test('nobody of that name, or no budget: says so', async () => {
    await expect(explain('ad')).rejects.toThrow(
      'no person has the name or the id "ad"; did you mean "Ada"?',
    );
    await expect(explain('Ada', 'Eid')).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: 'no occasion has the name or the id "Eid"',
    });
    await database.pool.query(`insert into persons (name) values ('Cleo')`);
    await expect(explain('Cleo')).rejects.toThrow(
      'person "Cleo" has no budget for occasion "Christmas"',
    );
  });

  test('a name that several have: the ids to choose from', async () => {
    await database.pool.query(`update persons set name = 'Ada'`);
    await expect(explain('Ada')).rejects.toThrow(
      'more than one budget fits (person 1, occasion 1; person 2, occasion 1): give the ids instead of the names',
    );
    expect((await explain('2')).out).toContain('Ada (person 2)');
  });

  test('an id is preferred to a name that looks like it', async () => {
    await database.pool.query(`update persons set name = '2' where id = 1`);
    expect((await explain('2')).out).toContain('Ben (person 2)');
  });

  test('both must be given', async () => {
    const explainArgs = (...args: string[]) =>
      runCommand(explainCommand, database, ['explain', ...args]);
    await expect(explainArgs('--person', '1')).rejects.toThrow("option '--occasion <name or id>'");
    await expect(explain('1', '1', '--format', 'csv')).rejects.toThrow('Allowed choices are text');
  });
});
