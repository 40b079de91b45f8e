import { stringify } from 'csv-stringify/sync';
import { Decimal } from 'decimal.js';
import fc from 'fast-check';
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { importCommand } from '../src/commands/import.ts';
import { openGiftEventsQueue, type QueueConnection } from '../src/queue.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { markedPairs, wrongTotals } from './support/budgets.ts';
import { emptyQueue } from './support/empty-queue.ts';
import { runCommand } from './support/run-command.ts';
import { startProgram } from './support/run-program.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

const HEADER = 'person,occasion,gift,amount';
const TABLES = ['persons', 'occasions', 'gifts', 'person_occasions', 'gift_persons'];

let database: TestDatabase;
let queue: QueueConnection;
let directory: string;

beforeAll(async () => {
  database = await createTestDatabase();
  queue = { backend: 'postgres', url: database.worker.url };
  directory = await mkdtemp(join(tmpdir(), 'import-'));
});

beforeEach(async () => {
  await database.pool.query('truncate persons, occasions, gifts restart identity cascade');
  await database.pool.query('delete from pending_recalculations');
});

afterAll(async () => {
  await rm(directory, { recursive: true });
  await database.close();
});

describe('a good file', () => {
  test('is imported with quotes, commas, line breaks, gaps, refunds and budgets', async () => {
    const { out, err, exitCode } = await importText(
      `\uFEFF${HEADER},budget`,
      'Mom,Christmas,"Chocolates, dark",14.50,100',
      'Mom,Christmas,"""Emma""",9,',
      'Mom,Christmas,"Discount\r\nof the season",-2.25,100.00',
      '',
      ' Dad , Birthday ,Something,,30',
      'Dad,,For whenever,5.00,',
    );
    expect({ err, exitCode }).toEqual({ err: '', exitCode: 0 });
    expect(out).toBe(
      'imported 5 assignments of 2 budgets (new: 2 persons, 2 occasions, 5 gifts, 2 budgets)\n' +
        'sent 2 gift events\n',
    );
    expect(await assignments()).toEqual([
      ['Mom', 'Christmas', 'Chocolates, dark', '14.50'],
      ['Mom', 'Christmas', '"Emma"', '9.00'],
      ['Mom', 'Christmas', 'Discount\r\nof the season', '-2.25'],
      ['Dad', 'Birthday', 'Something', null],
      ['Dad', null, 'For whenever', '5.00'],
    ]);
    expect(await budgets()).toEqual([
      ['Dad', 'Birthday', '30.00', '0.00'],
      ['Mom', 'Christmas', '100.00', '21.25'],
    ]);
  });

  test('may name its columns in any order and case', async () => {
    const { exitCode } = await importText('Amount,GIFT,person, Occasion ', '1.00,Book,Mom,Easter');
    expect(exitCode).toBe(0);
    expect(await assignments()).toEqual([['Mom', 'Easter', 'Book', '1.00']]);
  });

  test('imported twice assigns its gifts twice, and makes nobody twice', async () => {
    const lines = [`${HEADER},budget`, 'Mom,Easter,Book,1.10,5', 'Mom,Easter,Pen,2.20,'];
    await importText(...lines);
    const { out } = await importText(...lines);
    expect(out).toContain('(new: 0 persons, 0 occasions, 0 gifts, 0 budgets)');
    expect(await assignments()).toHaveLength(4);
    expect(await budgets()).toEqual([['Mom', 'Easter', '5.00', '6.60']]);
  });

  test('sets the budgets that it states, and leaves those that it does not', async () => {
    await importText(`${HEADER},budget`, 'Mom,Easter,Book,1,5', 'Dad,Easter,Book,1,6');
    await importText(`${HEADER},budget`, 'Mom,Easter,Book,1,7.50', 'Dad,Easter,Book,1,');
    expect(await budgets()).toMatchObject([
      ['Dad', 'Easter', '6.00', '2.00'],
      ['Mom', 'Easter', '7.50', '2.00'],
    ]);
  });

  test('means the oldest of several persons of one name', async () => {
    await database.pool.query(`insert into persons (name) values ('Ann'), ('Ann')`);
    await importText(HEADER, 'Ann,Easter,Book,1');
    const { rows } = await database.pool.query('select person_id from gift_persons');
    expect(rows).toEqual([{ person_id: '1' }]);
  });

  test('with nothing but gifts for no occasion, or no line at all, sends no event', async () => {
    const noOccasion = await importText(HEADER, 'Mom,,Book,1');
    expect(noOccasion).toEqual({
      out: 'imported 1 assignment of 0 budgets (new: 1 person, 0 occasions, 1 gift, 0 budgets)\n',
      err: '',
      exitCode: 0,
    });
    expect(await importText(HEADER)).toMatchObject({ err: '', exitCode: 0 });
  });

  test('of 100,000 lines goes through', async () => {
    const file = join(directory, 'large.csv');
    await pipeline(Readable.from(largeFile(100_000)), createWriteStream(file));
    const { out } = await runCommand(importCommand, { ...database, queue }, ['import', file]);
    expect(out).toContain('imported 100000 assignments of 1000 budgets');
    const { rows } = await database.pool.query('select sum(amount)::text from gift_persons');
    expect(rows).toEqual([{ sum: '125000.00' }]);
  });

  test('makes the totals that decimal.js sums, whatever the rows', async () => {
    const name = fc.stringMatching(/^[A-Za-z"',;\n][A-Za-z"',; \n]{0,6}$/).filter(isTrimmed);
    const amount = fc.option(fc.integer({ min: -10_000_00, max: 10_000_00 }).map(toMoney), {
      nil: '',
    });
    const row = fc.tuple(
      fc.constantFrom('Mom', 'O"Dad', 'a,b'),
      fc.oneof(fc.constantFrom('', 'Easter', '"'), name),
      name,
      amount,
    );
    const rows = fc.array(row, { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(rows, fc.constantFrom('\n', '\r\n'), async (given, lineBreak) => {
        await database.pool.query('truncate persons, occasions, gifts restart identity cascade');
        const csv = stringify([HEADER.split(','), ...given], { record_delimiter: lineBreak });
        expect(await importBytes(csv)).toMatchObject({ err: '', exitCode: 0 });
        const found = (await budgets()).map(([person, occasion, , spent]) => [
          `${person}/${occasion}`,
          spent,
        ]);
        expect(Object.fromEntries(found)).toEqual(sums(given));
      }),
      { numRuns: 25 },
    );
  });
});

describe('a bad file', () => {
  test('is told line by line, and nothing of it is stored', async () => {
    const { out, err } = await importBad(
      `${HEADER},budget`,
      'Mom,Easter,Book,1.00,5.00',
      ',Easter,,1.005,',
      'Mom,Easter,"Two',
      'lines",12,-1',
      '',
      'Mom,Easter,Book',
      'Mom,,Book,1e3,5',
      'Mom,Easter,Book,"1,50",5',
      'Mom,Easter,Book,1,6',
      'Mom,Easter,Book,1,7',
      'Mom,Easter,Book,1,2,3',
      `Mom,Easter,Book,${'9'.repeat(9)},5`,
    );
    expect(out).toBe('');
    expect(err.split('\n')).toEqual([
      'line 3: person: is empty; gift: is empty; amount: "1.005" has 3 decimal places: at most 2 can be stored',
      'line 4: budget: "-1.00" is negative: 0 or more is expected',
      'line 7: has 3 fields, expected 5: person,occasion,gift,amount,budget',
      'line 8: amount: "1e3" is written with an exponent: write all its digits, such as 1200.00; ' +
        'budget: "5.00" is for no occasion: name one',
      'line 9: amount: "1,50" has a separator or a decimal comma: write digits and one point, such as 1234.50',
      'line 10: budget: another one than in line 2 for Mom, Easter',
      'line 11: budget: another one than in line 2 for Mom, Easter',
      'line 12: has 6 fields, expected 5: person,occasion,gift,amount,budget',
      'line 13: amount: "999999999" is too large: from -99999999.99 to 99999999.99 can be stored',
      'error: 9 bad lines: nothing was imported',
    ]);
  });

  test.each(['\n', '\r\n', '\r'])('has the numbers that an editor shows, with %j', async (end) => {
    const text = [HEADER, '', `M,E,"a${end}${end}b",1`, '', '', ',E,x,1', 'M,E,"y', '",z'].join(
      end,
    );
    expect((await importBad(text)).err).toBe(
      'line 8: person: is empty\n' +
        'line 9: amount: "z" is not an amount: write digits, a point and two more digits, such as 12.50\n' +
        'error: 2 bad lines: nothing was imported',
    );
  });

  test.each([
    ['M,E,"Bo"ok,1', 'a quote within a quoted field: write it twice'],
    [
      'M,E,Bo"ok,1',
      'a quote in a field without quotes around it: put them around it, and write the inner one twice',
    ],
    ['M,E,"Book,1', 'a quote is opened and never closed'],
  ])('with a quote out of place is read up to there: %s', async (line, reason) => {
    const { err } = await importBad(HEADER, 'M,E,Book,x', '', line, 'M,E,Book,y');
    expect(err).toContain('line 2: amount: "x" is not an amount');
    expect(err).toContain(`line 4: ${reason}; what follows was not read\nerror: 2 bad lines`);
  });

  test('of which more than a hundred lines are bad tells the first hundred', async () => {
    const { err } = await importBad(HEADER, ...Array.from({ length: 250 }, () => 'Mom,Easter,,1'));
    const lines = err.split('\n');
    expect(lines).toHaveLength(102);
    expect(lines[99]).toBe('line 101: gift: is empty');
    expect(lines.slice(100)).toEqual([
      '… and 150 more',
      'error: 250 bad lines: nothing was imported',
    ]);
  });

  test('in another encoding is refused, not stored with its letters lost', async () => {
    const latin1 = Buffer.from(`${HEADER}\nZo\u00EB,Easter,Book,1\n`, 'latin1');
    expect((await importBad(latin1)).err).toContain('line 2: person: "Zo\uFFFD" is not UTF-8');
  });

  test.each([
    ['', 'the file is empty: expected the header person,occasion,gift,amount[,budget]'],
    ['\n\n', 'the file is empty'],
    ['person,gift,amount\n', 'header: the column occasion is missing; expected the header'],
    [`${HEADER},bugdet\n`, 'header: the column "bugdet" is unknown'],
    [`${HEADER},gift\n`, 'header: the column gift is there twice'],
    ['Mom,Easter,Book,1\n', 'header: the column person is missing, '],
    ['person;occasion;gift;amount\n', 'person,occasion,gift,amount[,budget], with commas between'],
  ])('whose header is not right says so: %j', async (text, reason) => {
    const { err } = await importBad(text);
    expect(err).toMatch(/^error: /);
    expect(err).toContain(reason);
  });

  test('that is not there, or is none, is told before a server is asked for', async () => {
    const run = async (path: string) => await runCommand(importCommand, database, ['import', path]);
    await expect(run('nowhere.csv')).rejects.toThrow(
      'cannot read nowhere.csv: there is no such file',
    );
    await expect(run(directory)).rejects.toThrow(`cannot read ${directory}: it is a directory`);
  });
});

test('an interrupted import stores nothing, and ends at once', async () => {
  const program = startProgram(['import', '-'], {
    DATABASE_URL: database.upstream.url,
    GIFT_BUDGETS_LOG_LEVEL: 'debug',
  });
  program.stdin!.write(`${HEADER}\n${'Mom,Easter,Book,1\n'.repeat(5_000)}`);
  await expect.poll(importingConnections, { timeout: 20_000 }).toBe(1);
  program.kill('SIGINT');
  expect(await program.ended()).toMatchObject({
    code: 130,
    out: '',
    err: 'interrupted: nothing was imported\n',
  });
  expect(await counts()).toEqual([0, 0, 0, 0, 0, 0]);
});

describeBackends('the events of an import', (open) => {
  test('name every pair once, and marks are left for them too', async () => {
    const own = await open(database);
    const looking = openGiftEventsQueue(own, () => {});
    await looking.connected();
    await emptyQueue(looking.queue, own);
    const text = `${HEADER}\nMom,Easter,Book,1\nMom,Easter,Pen,1\nDad,Easter,Pen,1\nDad,,Pen,1\n`;
    const { out } = await importBytes(text, own);
    expect(out).toContain('sent 2 gift events\n');
    const jobs = await looking.queue.getJobs(['waiting']);
    const pairs = jobs
      .filter(({ name }) => name === 'gift.assigned')
      .flatMap(affected)
      .toSorted();
    await emptyQueue(looking.queue, own);
    await looking.close();
    expect(pairs).toEqual(['1-1', '2-1']);
    expect(await markedPairs(database.pool)).toEqual(['1-1', '2-1']);
  });
});

test('without its queue an import is done all the same, with a warning', async () => {
  const away: QueueConnection = { backend: 'redis', url: 'redis://127.0.0.1:1' };
  const { out, err, exitCode } = await importBytes(`${HEADER}\nMom,Easter,Book,1\n`, away);
  expect(exitCode).toBe(0);
  expect(out).toContain('imported 1 assignment');
  expect(err).toMatch(/^warning: no gift events were sent: .*ECONNREFUSED/);
  expect(err).toContain('"gift-budgets start" makes the totals right all the same');
  expect(await markedPairs(database.pool)).toEqual(['1-1']);
});

async function importText(...lines: readonly string[]) {
  return await importBytes(`${lines.join('\r\n')}\r\n`);
}

async function importBytes(content: string | Buffer, to = queue) {
  const file = join(directory, 'gifts.csv');
  await writeFile(file, content);
  return await runCommand(importCommand, { ...database, queue: to }, ['import', file]);
}

/** Runs it to the refusal, and makes sure that no table has a row of it. */
async function importBad(...content: readonly (string | Buffer)[]) {
  const file = join(directory, 'gifts.csv');
  await writeFile(file, content[0] instanceof Buffer ? content[0] : content.join('\n'));
  const program = { out: '', err: '' };
  const create = (context: Parameters<typeof importCommand>[0]) =>
    importCommand({
      ...context,
      print: (text) => (program.out += `${text}\n`),
      warn: (text) => (program.err += `${text}\n`),
    });
  const refusal = await runCommand(create, { ...database, queue }, ['import', file]).then(
    () => Promise.reject(new Error('it was imported')),
    (error: Error) => error,
  );
  expect(refusal).toMatchObject({ code: 'COMMAND_FAILED' });
  expect(await counts()).toEqual([0, 0, 0, 0, 0, 0]);
  return { out: program.out, err: `${program.err}error: ${refusal.message}` };
}

async function counts(): Promise<number[]> {
  const all = [...TABLES, 'pending_recalculations'];
  const { rows } = await database.pool.query<{ count: number }>(
    all.map((table) => `select count(*)::int from ${table}`).join(' union all '),
  );
  return rows.map(({ count }) => count);
}

async function assignments(): Promise<(string | null)[][]> {
  const { rows } = await database.pool.query<Record<string, string | null>>(
    `select p.name as person, o.name as occasion, g.name as gift, amount::text
       from gift_persons a join persons p on p.id = person_id join gifts g on g.id = gift_id
       left join occasions o on o.id = occasion_id order by a.id`,
  );
  return rows.map((row) => Object.values(row));
}

/** After the recalculation. */
async function budgets(): Promise<(string | null)[][]> {
  const options = { pool: database.worker.pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1 };
  while (await catchUpOnce({ ...options, graceMs: () => 0 }));
  expect(await wrongTotals(database.pool)).toEqual([]);
  const { rows } = await database.pool.query<Record<string, string | null>>(
    `select p.name as person, o.name as occasion, budget_amount::text, budget_spent::text
       from person_occasions join persons p on p.id = person_id
       join occasions o on o.id = occasion_id order by 1, 2`,
  );
  return rows.map((row) => Object.values(row));
}

async function importingConnections(): Promise<number> {
  const { rows } = await database.pool.query(
    `select from pg_stat_activity where datname = current_database()
        and state = 'idle in transaction' and query like '%imported_lines%'`,
  );
  return rows.length;
}

function* largeFile(lines: number): Generator<string> {
  yield `${HEADER}\n`;
  for (let line = 0; line < lines; line += 1) {
    yield `Person ${line % 500},Occasion ${line % 1_000 < 500 ? 1 : 2},Gift ${line % 70},1.25\n`;
  }
}

function affected({ data }: { data: { affected: { personId: number; occasionId: number }[] } }) {
  return data.affected.map(({ personId, occasionId }) => `${personId}-${occasionId}`);
}

function isTrimmed(text: string): boolean {
  return text === text.trim() && text !== '';
}

function toMoney(cents: number): string {
  return new Decimal(cents).dividedBy(100).toString();
}

function sums(rows: readonly (readonly string[])[]): Record<string, string> {
  const totals = new Map<string, Decimal>();
  for (const [person, occasion, , amount] of rows) {
    if (!occasion) continue;
    const key = `${person}/${occasion}`;
    totals.set(key, (totals.get(key) ?? new Decimal(0)).plus(amount || 0));
  }
  return Object.fromEntries([...totals].map(([key, total]) => [key, total.toFixed(2)]));
}
