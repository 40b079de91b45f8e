import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { knownMigrations, openDatabase } from '../src/database.ts';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import { checkBypasses } from '../src/operations/doctor/bypasses.ts';
import { type CheckedFinding, examine, type Examined } from '../src/operations/doctor/examine.ts';
import type { Finding } from '../src/operations/doctor/finding.ts';
import { checkIndexes } from '../src/operations/doctor/indexes.ts';
import { checkPrivileges } from '../src/operations/doctor/privileges.ts';
import { checkQueueTables } from '../src/operations/doctor/queue-tables.ts';
import { checkSettings, judgePostgresVersion } from '../src/operations/doctor/server.ts';
import { checkStorage } from '../src/operations/doctor/storage.ts';
import { checkTriggers } from '../src/operations/doctor/triggers.ts';
import { prepareQueue } from '../src/queue.ts';
import { lastSweeps } from '../src/recalculation/sweep-record.ts';
import { openApp } from './support/app.ts';
import {
  assign,
  assignBehindTriggers,
  countMarks,
  eventually,
  seedPairs,
  spent,
} from './support/budgets.ts';
import { runProgram } from './support/run-program.ts';
import { createEmptyDatabase, createTestDatabase, type TestDatabase } from './support/servers.ts';

const ROLE = `doctor_${process.pid}`;

let database: TestDatabase;
let pair: Pair;
let asRole: string;

beforeAll(async () => {
  database = await createTestDatabase();
  await prepareQueue({ backend: 'postgres', url: database.url });
  [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
  await database.pool.query(`create role ${ROLE} login password 'only for tests'`);
  const url = new URL(database.url);
  [url.username, url.password] = [ROLE, 'only for tests'];
  asRole = url.href;
});
afterAll(async () => {
  await query(
    `reassign owned by ${ROLE} to current_user; drop owned by ${ROLE}; drop role ${ROLE}`,
  );
  await database.close();
});

/** All that is found but what is well, of one check or of all. */
async function findProblems(check?: string, examined: Partial<Examined> = {}) {
  const found = await findAll(examined);
  return found.filter((one) => one.severity !== 'ok' && (!check || one.check === check));
}

async function findAll(examined: Partial<Examined> = {}): Promise<CheckedFinding[]> {
  const databaseUrl = examined.databaseUrl ?? database.url;
  return await Array.fromAsync(
    examine({
      databaseUrl,
      unreachable: null,
      queue: { backend: 'postgres', url: databaseUrl },
      knownMigrations: await knownMigrations(),
      ...examined,
    }),
  );
}

/** Types what the findings say, statement by statement as psql sends it. */
async function typeSql(findings: readonly Finding[]): Promise<void> {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  try {
    let statement = '';
    for (const line of findings.flatMap(({ sql }) => sql)) {
      statement += `${line}\n`;
      const isOpen = statement.split('$$').length % 2 === 0;
      if (isOpen || !line.endsWith(';')) continue;
      await client.query(statement);
      statement = '';
    }
    expect(statement).toBe('');
  } finally {
    await client.end();
  }
}

async function query(sql: string): Promise<void> {
  await database.pool.query(sql);
}

it('finds nothing wrong with a database that was just migrated', async () => {
  const found = await findAll();
  const ofServer = /fsync|full_page_writes|no worker/;
  expect(found.filter((one) => one.severity !== 'ok' && !ofServer.test(one.found))).toEqual([]);
  expect([...new Set(found.map(({ check }) => check))]).toEqual([
    'server',
    'clock',
    'settings',
    'schema',
    'privileges',
    'triggers',
    'bypasses',
    'indexes',
    'storage',
    'work',
    'holders',
    'prepared',
    'snapshots',
    'queue',
  ]);
});

describe('what it finds is gone after what it says was typed:', () => {
  it.each<[what: string, plant: string, check: string, severity: string, says: RegExp]>([
    [
      'a disabled trigger',
      'alter table gift_persons disable trigger gift_persons_mark_updated',
      'triggers',
      'error',
      /^gift_persons_mark_updated on gift_persons is disabled$/,
    ],
    [
      'all triggers of a table disabled',
      'alter table gift_persons disable trigger user',
      'triggers',
      'error',
      /^gift_persons_mark_inserted, .*, gift_persons_mark_truncated on gift_persons are disabled$/,
    ],
    [
      'a trigger for replication alone',
      'alter table person_occasions enable replica trigger person_occasions_mark_updated',
      'triggers',
      'error',
      /^person_occasions_mark_updated on person_occasions is enabled for replication alone$/,
    ],
    [
      'a missing trigger',
      'drop trigger gift_persons_mark_truncated on gift_persons',
      'triggers',
      'error',
      /^gift_persons_mark_truncated on gift_persons is missing$/,
    ],
    [
      'a trigger that was changed',
      `drop trigger person_occasions_mark_updated on person_occasions;
       create trigger person_occasions_mark_updated after update of person_id on person_occasions
         for each row execute function mark_changed_budget()`,
      'triggers',
      'error',
      /^person_occasions_mark_updated on person_occasions is not as this version makes it: CREATE/,
    ],
    [
      'a function that was changed',
      `create or replace function mark_new_budgets() returns trigger language plpgsql
         security definer set search_path = pg_catalog, public, pg_temp as 'begin return null; end'`,
      'triggers',
      'error',
      /^the function mark_new_budgets\(\) is not as this version makes it$/,
    ],
    [
      'a function with the rights of the writer',
      'alter function mark_changed_assignments() security invoker',
      'triggers',
      'error',
      /^the function mark_changed_assignments\(\) is not as this version makes it$/,
    ],
    [
      'a function with the search_path of the writer',
      'alter function mark_changed_budget() reset search_path',
      'triggers',
      'error',
      /^the function mark_changed_budget\(\) is not as this version makes it$/,
    ],
    [
      'a function whose owner may not write marks',
      `alter function mark_new_budgets() owner to ${ROLE}`,
      'triggers',
      'error',
      /^the owner of the function mark_new_budgets\(\), doctor_\d+, may not write marks$/,
    ],
    [
      'a role without triggers',
      `alter role ${ROLE} set session_replication_role = replica`,
      'bypasses',
      'error',
      /^session_replication_role is replica for role doctor_\d+$/,
    ],
    [
      'a role without triggers in this database',
      `do $$ begin execute format('alter role ${ROLE} in database %I set session_replication_role = replica',
         current_database()); end $$`,
      'bypasses',
      'error',
      /^session_replication_role is replica for role doctor_\d+ in database \w+$/,
    ],
    [
      'a table that the assignments are a part of',
      `create table all_assignments (like gift_persons including all);
       alter table gift_persons inherit all_assignments`,
      'bypasses',
      'error',
      /^gift_persons is itself a part of all_assignments$/,
    ],
    [
      'a missing index',
      'drop index idx_gift_person_contribution',
      'indexes',
      'error',
      /^idx_gift_person_contribution is missing$/,
    ],
    [
      'another index under its name',
      'drop index idx_gift_person_gift; create index idx_gift_person_gift on gift_persons (gift_id, id)',
      'indexes',
      'error',
      /^idx_gift_person_gift is not as this version makes it: CREATE INDEX/,
    ],
    [
      'an index that holds the totals',
      'create index spent on person_occasions (person_id) include (budget_spent)',
      'indexes',
      'warning',
      /^spent holds budget_spent$/,
    ],
    [
      'an unlogged table',
      'alter table pending_recalculations set unlogged',
      'storage',
      'error',
      /^pending_recalculations is unlogged$/,
    ],
    [
      'marks without autovacuum',
      'alter table pending_recalculations set (autovacuum_enabled = off)',
      'storage',
      'error',
      /^autovacuum is off for pending_recalculations$/,
    ],
    [
      'marks with options of their own',
      'alter table pending_recalculations reset (vacuum_truncate, autovacuum_vacuum_threshold)',
      'storage',
      'warning',
      /^pending_recalculations is stored without autovacuum_vacuum_threshold=1000, vacuum_truncate=off$/,
    ],
    [
      'budgets on full pages',
      'alter table person_occasions reset (fillfactor)',
      'storage',
      'warning',
      /^person_occasions is stored without fillfactor=85$/,
    ],
    [
      'row security that hides rows',
      `alter table gift_persons enable row level security`,
      'privileges',
      'error',
      /^row security keeps rows of gift_persons from the role doctor_\d+$/,
    ],
    [
      'another isolation level',
      `alter role ${ROLE} set default_transaction_isolation = 'serializable'`,
      'settings',
      'warning',
      /^the default isolation level is serializable$/,
    ],
    [
      'a short statement_timeout',
      `alter role ${ROLE} set statement_timeout = '2s'`,
      'settings',
      'warning',
      /^statement_timeout is 2s for role doctor_\d+$/,
    ],
  ])('%s', async (_, plant, check, severity, says) => {
    const isOfRole = check === 'settings' || check === 'privileges';
    if (isOfRole) await grantAll();
    const look = async () => await lookOnce(CHECKS[check]!, isOfRole ? asRole : database.url);
    expect(await look()).toEqual([]);
    await query(plant);
    const found = await look();
    expect(found).toMatchObject([{ severity, found: expect.stringMatching(says) }]);
    expect(found[0]!.why).not.toBeNull();
    await typeSql(found);
    expect(await look()).toEqual([]);
  });
});

const CHECKS: Readonly<Record<string, (db: pg.Pool) => Promise<readonly Finding[]>>> = {
  triggers: checkTriggers,
  bypasses: checkBypasses,
  indexes: checkIndexes,
  privileges: checkPrivileges,
  storage: async (db) => await checkStorage(db, 100_000),
  settings: async (db) => await checkSettings(db, 1),
};

/** On new connections, which have the defaults as they are now; but for what the tests' server is. */
async function lookOnce(
  check: (db: pg.Pool) => Promise<readonly Finding[]>,
  connectionString: string,
): Promise<Finding[]> {
  const pool = new pg.Pool({ connectionString, max: 1 });
  try {
    const found = await check(pool);
    return found.filter(
      ({ severity, found: what }) =>
        severity !== 'ok' && !/^(fsync|full_page_writes) is off/.test(what),
    );
  } finally {
    await pool.end();
  }
}

async function grantAll(): Promise<void> {
  await typeSql(await lookOnce(checkPrivileges, asRole));
}

describe('what is written to a part of a table', () => {
  it('is marked once what it says was typed', async () => {
    await query(
      'create table gift_persons_old () inherits (gift_persons); truncate pending_recalculations',
    );
    const write = async () =>
      await query(
        `insert into gift_persons_old (id, gift_id, person_id, occasion_id, amount)
         select coalesce(max(id), 0) + 1, 1, 1, 1, 1 from gift_persons`,
      );
    const look = async () => await lookOnce(checkBypasses, database.url);
    await write();
    expect(await countMarks(database.pool)).toBe(0);
    const found = await look();
    expect(found).toMatchObject([
      {
        severity: 'warning',
        found: 'gift_persons_old is a part of gift_persons, without the triggers that mark',
      },
    ]);
    await typeSql(found);
    expect(await look()).toEqual([]);
    await write();
    expect(await countMarks(database.pool)).toBe(1);
    await query('drop table gift_persons_old; truncate pending_recalculations');
  });
});

it('a replaced budget_contributions that reads a table without marks is told', async () => {
  const replace = async (from: string) =>
    await query(
      `create or replace view budget_contributions (person_id, occasion_id, amount) as
       select a.person_id, a.occasion_id, a.amount from ${from}
        where a.occasion_id is not null and a.amount is not null`,
    );
  await replace('gift_persons a join gifts g on g.id = a.gift_id');
  const found = await lookOnce(checkBypasses, database.url);
  await replace('gift_persons a');
  expect(found).toMatchObject([
    {
      severity: 'warning',
      found: 'budget_contributions reads gifts, which has no trigger that marks',
      todo: expect.stringContaining('docs/schema.md'),
    },
  ]);
  expect(await lookOnce(checkBypasses, database.url)).toEqual([]);
});

it('an index whose build was broken off is told, and built by what it says', async () => {
  await query('drop index idx_person_occasion_occasion');
  const writer = await openSession();
  await writer.query('begin; update person_occasions set budget_notes = null');
  const builder = await openSession();
  await builder.query(`set lock_timeout = '50ms'`);
  await expect(
    builder.query(
      `create index concurrently idx_person_occasion_occasion on person_occasions (occasion_id, person_id)`,
    ),
  ).rejects.toMatchObject({ code: '55P03' });
  await Promise.all([writer.end(), builder.end()]);
  const found = await lookOnce(checkIndexes, database.url);
  expect(found).toMatchObject([
    {
      severity: 'error',
      found: 'idx_person_occasion_occasion is invalid: its build was broken off',
      sql: ['reindex index concurrently idx_person_occasion_occasion;'],
    },
  ]);
  await typeSql(found);
  expect(await lookOnce(checkIndexes, database.url)).toEqual([]);
});

async function openSession(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url, application_name: 'session' });
  client.on('error', () => {});
  await client.connect();
  return client;
}

describe('a role', () => {
  it('without privileges is told what to grant, and with no more than that all work goes on', async () => {
    await query(`reassign owned by ${ROLE} to current_user; drop owned by ${ROLE}`);
    const found = await lookOnce(checkPrivileges, asRole);
    expect(found).toMatchObject([
      {
        severity: 'error',
        found: expect.stringMatching(
          /^the role doctor_\d+ may not do all that a worker does, on persons/,
        ),
        sql: expect.arrayContaining([
          `grant insert, delete, update (person_id, occasion_id) on "public".pending_recalculations to "${ROLE}";`,
        ]),
      },
    ]);
    const queue = await lookOnce(checkQueueTables, asRole);
    expect(queue).toMatchObject([
      { severity: 'error', found: 'this role may not use the schema bullmq, where the queue is' },
    ]);
    await typeSql([...found, ...queue]);
    expect(await findProblems('privileges', { databaseUrl: asRole })).toEqual([]);
    expect(await findProblems('queue', { databaseUrl: asRole })).toEqual([]);

    const asDatabase = await openDatabase(asRole);
    const app = await openApp(
      { ...database, worker: { url: asRole, pool: asDatabase.pool } },
      { backend: 'postgres', url: asRole },
      { GIFT_BUDGETS_SWEEP_INTERVAL_MS: '1000' },
    );
    onTestFinished(async () => {
      await app.stop();
      await asDatabase.close();
    });
    await assign(database.pool, pair, '12.50');
    await assignBehindTriggers(database.pool, pair, '30.00');
    const events = new GiftEventClient({ backend: 'postgres', url: asRole });
    await events.recalculateBudgets([pair]);
    await events.close();
    await eventually(
      async () => await spent(database.pool, pair),
      (total) => total === '42.50',
    );
    await eventually(
      async () => await lastSweeps(database.pool, 1),
      ([sweep]) => sweep?.finishedAt != null,
    );
    expect(app.log.filter((line) => !line.includes('"msg":"drift"'))).toEqual([]);
    expect(await countMarks(database.pool)).toBe(0);
  });

  it('that does not look where the tables are is told so', async () => {
    await query(`alter role ${ROLE} set search_path = nowhere`);
    const [found, ...others] = await findProblems('schema', { databaseUrl: asRole });
    expect(others).toEqual([]);
    expect(found).toMatchObject({
      severity: 'error',
      found: 'the tables are in the schema public, where this role does not look',
    });
    await typeSql([found!]);
    expect(await findProblems('schema', { databaseUrl: asRole })).toEqual([]);
  });
});

describe('the schema', () => {
  it('that lacks migrations is told with what to type, and nothing of it twice', async () => {
    const empty = await createEmptyDatabase();
    const found = await findProblems(undefined, { databaseUrl: empty.url });
    await empty.close();
    const ofSchema = found.filter(({ check }) => check !== 'settings');
    expect(ofSchema).toMatchObject([
      { check: 'schema', severity: 'error', shell: ['gift-budgets migrate'] },
      { check: 'queue', found: 'the tables of the queue are missing' },
    ]);
    expect(ofSchema[0]!.found).toMatch(
      /^the database lacks \d+ migrations that this version needs/,
    );
  });

  it('of a later version is told', async () => {
    await query(
      `insert into gift_budgets_migrations (name) values ('Migration29990101000000_later')`,
    );
    const found = await findProblems('schema');
    await query(`delete from gift_budgets_migrations where name like 'Migration2999%'`);
    expect(found).toMatchObject([{ severity: 'error', todo: 'Deploy that version here too.' }]);
    expect(await findProblems('schema')).toEqual([]);
  });
});

describe('who holds budgets', () => {
  it.each(['by a session', 'by a prepared transaction'])(
    '%s is told, and ended by what it says',
    async (how) => {
      await markOld();
      const session = await openSession();
      await session.query('begin; update person_occasions set budget_notes = null');
      if (how === 'by a prepared transaction') {
        await session.query(`prepare transaction 'doctor''s'`);
      }
      const found = await findProblems('holders');
      expect(found).toMatchObject([
        {
          severity: 'error',
          found: expect.stringMatching(
            how === 'by a session'
              ? /^the budget of person 1, occasion 1 is held by pid \d+ \(session, idle in transaction, its transaction 00:00:0\d old\)$/
              : /^the budget of person 1, occasion 1 is held by the prepared transaction 'doctor''s' for 00:00:0\d$/,
          ),
        },
      ]);
      const ends = found[0]!.sql[0]!.replace(/^COMMIT PREPARED '\w+''s' or /, '');
      await query(ends);
      await session.end();
      await eventually(
        async () => await findProblems('holders', { limits: { holdSeconds: 0 } }),
        (left) => left.length === 0,
      );
      await query('truncate pending_recalculations');
    },
  );

  it('is told where nothing waits yet too, after a while; prepared ones, and old snapshots', async () => {
    const [writer, reader] = [await openSession(), await openSession()];
    await reader.query('begin isolation level repeatable read; select from gifts');
    await writer.query('begin; update person_occasions set budget_notes = null');
    const now = { limits: { holdSeconds: 0, snapshotSeconds: 0 } };
    expect(await findProblems('holders')).toEqual([]);
    expect(await findProblems('holders', now)).toMatchObject([
      {
        severity: 'warning',
        found: expect.stringMatching(/^budgets are held by pid \d+ \(session/),
      },
    ]);
    expect(await findProblems('snapshots')).toEqual([]);
    const old = await findProblems('snapshots', now);
    expect(old.map(({ found }) => found)).toEqual(
      Array(2).fill(
        expect.stringMatching(/^pid \d+ \(session, idle in transaction\) is in a trans/),
      ),
    );
    await typeSql(old);
    await writer.end();
    await reader.end();

    const preparer = await openSession();
    await preparer.query(
      `begin; insert into gifts (name) values ('x'); prepare transaction 'left'`,
    );
    await preparer.end();
    expect(await findProblems('prepared')).toEqual([]);
    const left = await findProblems('prepared', now);
    expect(left).toMatchObject([
      { found: expect.stringMatching(/^the prepared transaction 'left' of \w+ is \d\.\d s old$/) },
    ]);
    await query(left[0]!.sql.at(-1)!);
    expect(await findProblems('prepared', now)).toEqual([]);
  });
});

describe('what is behind', () => {
  it('is told as an error, where no worker is connected with how to start one', async () => {
    expect(await findProblems('work')).toMatchObject([
      { severity: 'warning', found: 'no worker is connected to this database; nothing is pending' },
    ]);
    await markOld();
    expect(await findProblems('work')).toMatchObject([
      {
        severity: 'error',
        found: expect.stringMatching(
          /^no worker .*; the totals are 1 h( \d s)? behind, 1 pair pending$/,
        ),
        shell: ['gift-budgets start'],
      },
    ]);
    const worker = new pg.Client({
      connectionString: database.url,
      application_name: 'gift-budgets worker',
    });
    await worker.connect();
    expect(await findProblems('work')).toMatchObject([
      {
        severity: 'error',
        found: expect.stringMatching(/^the totals are 1 h( \d s)? behind, 1 pair pending$/),
      },
    ]);
    await query('truncate pending_recalculations');
    expect(await findProblems('work')).toEqual([]);
    await worker.end();
  });

  it('by dead marks is told', async () => {
    const session = await openSession();
    await session.query(
      `insert into pending_recalculations (person_id, occasion_id) select 1, 1 from generate_series(1, 20)`,
    );
    await session.query('delete from pending_recalculations');
    await session.end();
    const limits = { deadMarks: 10 };
    const [found] = await eventually(
      async () => await findProblems('storage', { limits }),
      (problems) => problems.length > 0,
    );
    expect(found).toMatchObject({
      severity: 'warning',
      found: expect.stringMatching(/^\d\d dead marks, .*: vacuum does not keep up$/),
    });
    await typeSql([found!]);
    await eventually(
      async () => await findProblems('storage', { limits }),
      (problems) => problems.length === 0,
    );
  });
});

async function markOld(): Promise<void> {
  await query(
    `insert into pending_recalculations (person_id, occasion_id, marked_at)
     values (${pair.personId}, ${pair.occasionId}, clock_timestamp() - interval '1 h')`,
  );
}

it('clocks that differ are told, whichever is ahead', async () => {
  for (const [offMs, which] of [
    [-90_000, 'ahead of'],
    [90_000, 'behind'],
  ] as const) {
    const found = await findProblems('clock', { now: () => Date.now() + offMs });
    expect(found).toMatchObject([
      {
        severity: 'warning',
        found: expect.stringMatching(
          new RegExp(`^the clock of PostgreSQL is (89\\.9|90\\.\\d) s ${which} this machine's$`),
        ),
      },
    ]);
  }
});

it('a server that runs out of connections is told', async () => {
  const found = await findProblems('settings', { limits: { connectionsUsed: 0 } });
  expect(found.map((one) => one.found)).toContainEqual(
    expect.stringMatching(/^\d+ of \d+ connections are in use$/),
  );
});

it('a server that is old is told', () => {
  expect(judgePostgresVersion('14.20', 14)).toMatchObject([{ severity: 'warning' }]);
  expect(judgePostgresVersion('15.1', 15)).toEqual([]);
});

describe('the command', () => {
  it('says all that can be said with both servers away, without a password, and exits with 1', async () => {
    const { code, out, err } = await runProgram(['doctor'], {
      DATABASE_URL: 'postgres://u:s3cret@127.0.0.1:1/budgets',
      REDIS_URL: 'redis://u:s3cret@127.0.0.1:1',
    });
    expect({ code, err }).toEqual({ code: 1, err: '' });
    expect(out).toMatch(
      /^error {4}server {6}cannot connect to the database "budgets" at 127.0.0.1:1 \(DATABASE_URL\): nothing/,
    );
    expect(out).toMatch(/\nerror {4}redis {7}Redis cannot be asked: connect ECONNREFUSED/);
    expect(out).toMatch(/\n2 errors, 0 warnings\n$/);
    expect(out).not.toContain('s3cret');
  });

  it('exits with 0 where there are warnings at most; as JSON too', async () => {
    const env = { DATABASE_URL: database.url };
    const { code, out, err } = await runProgram(['doctor', '--format', 'json'], env);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const told = JSON.parse(out) as { errors: number; findings: CheckedFinding[] };
    expect(told).toMatchObject({ errors: 0, warnings: expect.any(Number) });
    expect(told.findings).toContainEqual({
      check: 'work',
      severity: 'warning',
      found: 'no worker is connected to this database; nothing is pending',
      why: 'Changes wait, marked, until there is one. Nothing is lost meanwhile.',
      todo: null,
      sql: [],
      shell: ['gift-budgets start'],
    });
  });
});
