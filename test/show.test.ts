import { parse } from 'csv-parse/sync';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { readNamedBudgets } from '../src/budgets/named-budgets.ts';
import { showCommand } from '../src/commands/show.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';
import { runCommand } from './support/run-command.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});

beforeEach(async () => {
  await database.pool.query('truncate persons, occasions, gifts restart identity cascade');
});

afterAll(async () => {
  await database.close();
});

type BudgetInRows = [
  person: string,
  occasion: string,
  amount: string | null,
  spent: string,
  notes?: string | null,
];

/** Persons and occasions get their ids, from 1 on, in order of first appearance. */
async function store(budgets: readonly BudgetInRows[]): Promise<void> {
  const { pool } = database;
  for (const [table, place] of [
    ['persons', 0],
    ['occasions', 1],
  ] as const) {
    const names = [...new Set(budgets.map((budget) => budget[place]))];
    await pool.query(`insert into ${table} (name) select * from unnest($1::text[])`, [names]);
  }
  await pool.query(
    `insert into person_occasions
       (person_id, occasion_id, budget_amount, budget_spent, budget_currency, budget_notes)
     select p.id, o.id, b.amount, b.spent, 'EUR', b.notes
       from unnest($1::text[], $2::text[], $3::numeric[], $4::numeric[], $5::text[])
            as b (person, occasion, amount, spent, notes)
       join persons p on p.name = b.person
       join occasions o on o.name = b.occasion`,
    [0, 1, 2, 3, 4].map((place) => budgets.map((budget) => budget[place] ?? null)),
  );
}

const show = (...args: string[]) => runCommand(showCommand, database, ['show', ...args]);

const FAMILY: readonly BudgetInRows[] = [
  ['Ben', 'Christmas', '50', '62.50', 'a bike, "blue"'],
  ['Ada', 'Christmas', '100', '25'],
  ['Ada', 'Birthday', null, '-5'],
  ['Zoë', 'Birthday', '0', '0'],
];

describe('as a table', () => {
  test('it is sorted by the names, and marks what is over', async () => {
    await store(FAMILY);
    const { out, err, exitCode } = await show('--all');
    expect(`\n${out}`).toBe(`
person  occasion   budget  spent  remaining  percent used  over  currency  notes
──────  ─────────  ──────  ─────  ─────────  ────────────  ────  ────────  ──────────────
Ada     Birthday        –  -5.00          –             –        EUR       –
Ada     Christmas  100.00  25.00      75.00         25.00        EUR       –
Ben     Christmas   50.00  62.50     -12.50        125.00  yes   EUR       a bike, "blue"
Zoë     Birthday     0.00   0.00       0.00             –        EUR       –

4 budgets, 1 over
`);
    expect([err, exitCode]).toEqual(['', 0]);
  });

  test('names in wide letters line up, and no name moves the cursor of the terminal', async () => {
    await store([
      ['愛子', 'Eid', '1', '2'],
      ['x\u001b[2Jy\nz', 'Eid', '1', '2'],
    ]);
    const { out } = await show('--columns', 'person,total,occasion');
    expect(`\n${out}`).toBe(`
person    total  occasion
────────  ─────  ────────
x [2Jy z   2.00  Eid
愛子       2.00  Eid

2 budgets, 2 over
`);
  });

  test('no budget at all is said, and no error', async () => {
    const { out, exitCode } = await show();
    expect([out, exitCode]).toEqual(['No budgets.\n', 0]);
  });
});

describe('as CSV', () => {
  test('it has every column, an empty field for null, and quotes where it must', async () => {
    await store(FAMILY);
    const { out } = await show('--format', 'csv');
    expect(out).toBe(
      'person,occasion,budget,spent,remaining,percent_used,over,currency,notes\n' +
        'Ada,Birthday,,-5.00,,,false,EUR,\n' +
        'Ada,Christmas,100.00,25.00,75.00,25.00,false,EUR,\n' +
        'Ben,Christmas,50.00,62.50,-12.50,125.00,true,EUR,"a bike, ""blue"""\n' +
        'Zoë,Birthday,0.00,0.00,0.00,,false,EUR,\n',
    );
  });

  test('it has the columns that were asked for, in their order', async () => {
    await store(FAMILY);
    const { out } = await show('--all', '--format', 'csv', '--columns', 'person, occasion,total');
    expect(out).toBe(
      'person,occasion,total\n' +
        'Ada,Birthday,-5.00\nAda,Christmas,25.00\nBen,Christmas,62.50\nZoë,Birthday,0.00\n',
    );
  });

  test('whatever a name holds is read back as it was, sorted by code point', async () => {
    const names = [
      'a,b',
      'A"B"',
      '"',
      'two\nlines',
      'a\rb',
      'c\r\n',
      ' x ',
      'é',
      'z',
      'Z',
      '愛',
      '😀',
    ];
    await store(names.map((name) => [name, 'Eid', '1', '2', `notes of ${name}`]));
    const { out } = await show('--format', 'csv', '--columns', 'person,notes');
    const byCodePoint = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(parse(out, { record_delimiter: '\n' })).toEqual([
      ['person', 'notes'],
      ...byCodePoint.map((name) => [name, `notes of ${name}`]),
    ]);
    expect(out).toContain('"a\rb"');
  });

  test('it is sorted the same in a database of another language', async () => {
    await store(['a', 'B', 'é', 'z', 'Z'].map((name) => [name, 'Eid', '1', '2']));
    const { pool } = database;
    await pool.query('alter table persons alter column name type text collate "sv-x-icu"');
    try {
      const { out } = await show('--format', 'csv', '--columns', 'person');
      expect(out).toBe('person\nB\nZ\na\nz\né\n');
    } finally {
      await pool.query('alter table persons alter column name type text collate "default"');
    }
  });

  test('it is the header alone where there is no budget', async () => {
    expect((await show('--format', 'csv', '--columns', 'person,total')).out).toBe('person,total\n');
  });
});

describe('as JSON', () => {
  test('it is an array of objects, money as text', async () => {
    await store(FAMILY);
    const { out } = await show('--format', 'json', '--person', 'Ben');
    expect(JSON.parse(out)).toEqual([
      {
        person: 'Ben',
        occasion: 'Christmas',
        budget: '50.00',
        spent: '62.50',
        remaining: '-12.50',
        percent_used: '125.00',
        over: true,
        currency: 'EUR',
        notes: 'a bike, "blue"',
      },
    ]);
  });

  test('it has the ids too where they are asked for', async () => {
    await store(FAMILY);
    const { out } = await show('--format', 'json', '--over', '--columns', 'person_id,occasion_id');
    expect(JSON.parse(out)).toEqual([{ person_id: '1', occasion_id: '1' }]);
  });

  test.each([0, 1, 999, 1_000, 1_001, 2_000, 2_500])('%i budgets', async (count) => {
    await store(Array.from({ length: count }, (_, place) => [`p${place}`, 'Eid', null, '1']));
    const { out } = await show('--format', 'json', '--columns', 'person');
    const persons = (JSON.parse(out) as { person: string }[]).map(({ person }) => person);
    expect(persons).toHaveLength(count);
    expect(new Set(persons).size).toBe(count);
    expect(persons).toEqual(persons.toSorted());
  });
});

describe('which budgets', () => {
  const shown = async (...args: string[]): Promise<string[]> => {
    const { out } = await show('--format', 'csv', '--columns', 'person,occasion', ...args);
    return out.trimEnd().split('\n').slice(1);
  };

  test('of a person, for an occasion, for both, by name or id, those over', async () => {
    await store(FAMILY);
    expect(await shown('--person', 'Ada')).toEqual(['Ada,Birthday', 'Ada,Christmas']);
    expect(await shown('--person', '2')).toEqual(['Ada,Birthday', 'Ada,Christmas']);
    expect(await shown('--occasion', 'Birthday')).toEqual(['Ada,Birthday', 'Zoë,Birthday']);
    expect(await shown('--occasion', '2')).toEqual(['Ada,Birthday', 'Zoë,Birthday']);
    expect(await shown('--person', 'Ada', '--occasion', 'Birthday')).toEqual(['Ada,Birthday']);
    expect(await shown('--person', 'Zoë', '--occasion', 'Christmas')).toEqual([]);
    expect(await shown('--over')).toEqual(['Ben,Christmas']);
    expect(await shown('--all', '--over')).toEqual(['Ben,Christmas']);
    expect(await shown('--person', 'Ada', '--over')).toEqual([]);
  });

  test('all who have the name, or whose id looks like it', async () => {
    await store([
      ['Ada', '2', '1', '1'],
      ['Ben', '2025', '1', '1'],
    ]);
    await database.pool.query(
      `insert into persons (name) values ('Ada');
       insert into person_occasions (person_id, occasion_id) values (3, 1)`,
    );
    expect(await shown('--person', 'Ada')).toEqual(['Ada,2', 'Ada,2']);
    expect(await shown('--occasion', '2')).toEqual(['Ada,2', 'Ada,2', 'Ben,2025']);
  });

  test('nobody of that name: says so, and names those who begin like it', async () => {
    await store(FAMILY);
    await expect(show('--person', 'zo')).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: 'no person has the name or the id "zo"; did you mean "Zoë"?',
    });
    await expect(show('--person', 'be')).rejects.toThrow(
      'no person has the name or the id "be"; did you mean "Ben"?',
    );
    await expect(show('--occasion', '99')).rejects.toThrow(
      'no occasion has the name or the id "99"',
    );
  });

  test('options that contradict each other or are unknown are refused', async () => {
    await expect(show('--all', '--person', 'Ada')).rejects.toThrow('cannot be used with');
    await expect(show('--format', 'xml')).rejects.toThrow('Allowed choices are table, csv, json');
    await expect(show('--columns', 'person,totl')).rejects.toThrow('There is no column "totl"');
  });
});

describe('many budgets', () => {
  const count = 2_500;
  const many = () =>
    store(Array.from({ length: count }, (_, place) => [`p${place}`, 'Eid', null, '1']));
  const connections = () => ({ all: database.pool.totalCount, idle: database.pool.idleCount });

  test('no snapshot stays open while somebody reads the first of them', async () => {
    await many();
    const chunks = readNamedBudgets(database.pool);
    expect((await chunks.next()).value).toHaveLength(1_000);
    const { rows } = await database.pool.query(
      `select state, backend_xmin from pg_stat_activity
        where datname = current_database() and query like 'fetch%named_budgets'`,
    );
    expect(rows).toEqual([{ state: 'idle', backend_xmin: null }]);
    await chunks.return();
    const { all, idle } = connections();
    expect(idle).toBe(all);
  });

  test('they are of one moment, whatever changes while they are read', async () => {
    await many();
    const seen: string[] = [];
    for await (const chunk of readNamedBudgets(database.pool)) {
      seen.push(...chunk.map((budget) => budget.person));
      await database.pool.query('delete from persons where id % 2 = 0');
    }
    expect(new Set(seen).size).toBe(count);
  });

  test('an interruption ends the output and gives the connection back without its cursor', async () => {
    await many();
    const { out, exitCode } = await runCommand(
      showCommand,
      database,
      ['show', '--format', 'csv', '--columns', 'person'],
      (interrupt) => interrupt.abort(),
    );
    expect([out, exitCode]).toEqual(['person\n', 130]);
    const { all, idle } = connections();
    expect(idle).toBe(all);
    const { rows } = await database.pool.query('select name from pg_cursors');
    expect(rows).toEqual([]);
  });

  test('an error of the database is the error of the command', async () => {
    await many();
    await database.pool.query('alter table persons rename column name to called');
    try {
      await expect(show('--all')).rejects.toMatchObject({ code: '42703' });
    } finally {
      await database.pool.query('alter table persons rename column called to name');
    }
    expect((await show('--all')).out).toContain(`${count} budgets, 0 over`);
  });
});
