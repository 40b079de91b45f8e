import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { GRANTEES, type Grantee } from '../../src/grants.ts';
import type { Pair } from '../../src/events/contract.ts';
import { assign, eventually, markedPairs, seedPairs, spent } from '../support/budgets.ts';
import { runProgram, startProgram } from '../support/run-program.ts';
import {
  createEmptyDatabase,
  createTestDatabase,
  dropDatabaseRoles,
  type TestDatabase,
} from '../support/servers.ts';

let database: TestDatabase;
let pair: Pair;
let other: Pair;

beforeAll(async () => {
  database = await createTestDatabase();
  [pair, other] = (await seedPairs(database.pool, 2, 1)) as [Pair, Pair];
  await database.pool.query('create table secrets (secret text)');
});
afterAll(async () => {
  await database.close();
});

const NOT_ALLOWED: Readonly<Record<Exclude<Grantee, 'migrator'>, readonly string[]>> = {
  worker: [
    'update person_occasions set budget_amount = 1',
    `update person_occasions set budget_notes = 'x'`,
    'update person_occasions set person_id = person_id',
    'select budget_notes from person_occasions',
    'insert into person_occasions (person_id, occasion_id) values (1, 1)',
    'delete from person_occasions',
    'insert into gift_persons (gift_id, person_id) values (1, 1)',
    'update gift_persons set amount = 1',
    'delete from gift_persons',
    'truncate gift_persons',
    `update persons set name = 'x'`,
    'delete from occasions',
    'truncate pending_recalculations',
    'update pending_recalculations set marked_at = now()',
    'update budget_sweep_findings set stored = 0::text',
    'delete from budget_sweep_findings',
    `update budget_sweeps set mode = 'report'`,
    `insert into gift_budgets_migrations (name) values ('x')`,
    `update bullmq.migration set version = 99`,
    'create table bullmq.mine (id int)',
  ],
  reader: [
    'update person_occasions set budget_spent = 1',
    'select from person_occasions for update',
    'insert into pending_recalculations (everything) values (true)',
    'delete from recalculation_failures',
    `insert into budget_sweeps (mode) values ('report')`,
    'update gift_persons set amount = 1',
    'select from bullmq.job',
  ],
  upstream: [
    'select from pending_recalculations',
    'insert into pending_recalculations (everything) values (true)',
    'delete from pending_recalculations',
    'truncate pending_recalculations',
    'select from recalculation_failures',
    'select from budget_sweeps',
    'select from budget_contributions',
    'update person_occasions set budget_spent = 1',
    'insert into person_occasions (person_id, occasion_id, budget_spent) values (1, 1, 1)',
    'truncate gift_persons',
    'select from gift_budgets_migrations',
    'select mark_changed_assignments()',
  ],
};

/** What none of these may. */
const NOBODY = [
  'select from secrets',
  'select from pg_authid',
  'create table mine (id int)',
  `create function mine() returns int language sql as 'select 1'`,
  'create schema mine',
  'alter table gift_persons disable trigger all',
  'drop trigger gift_persons_mark_inserted on gift_persons',
  'create trigger mine after insert on gift_persons execute function mark_changed_assignments()',
  'alter table pending_recalculations add column mine int',
  'drop table recalculation_failures',
  'create or replace view budget_contributions as select 1 as mine',
  'create index on person_occasions (budget_spent)',
  `set session_replication_role = 'replica'`,
  `copy persons to program 'true'`,
  'create role mine',
];

/** Not permitted; or a trigger function, which nobody can call. */
const REFUSALS = ['42501', '0A000'];

describe.each(Object.entries(NOT_ALLOWED) as [Grantee, readonly string[]][])(
  'the %s',
  (grantee, statements) => {
    it.each([...statements, ...NOBODY])('may not: %s', async (statement) => {
      const error = await database[grantee].pool.query(statement).then(
        () => new Error('the server let it be done'),
        (refusal: unknown) => refusal,
      );
      expect(REFUSALS, String(error)).toContain((error as { code?: string }).code);
    });

    it('is a member of no other role, and owns nothing', async () => {
      const { rows } = await database.pool.query(
        `select (select count(*)::int from pg_auth_members where member = r.oid) as memberships,
                (select count(*)::int from pg_shdepend where refobjid = r.oid and deptype = 'o') as owned,
                rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication as strong
           from pg_roles r where rolname = $1`,
        [inject('roles').names[grantee]],
      );
      expect(rows).toEqual([{ memberships: 0, owned: 0, strong: false }]);
    });
  },
);

describe('the migrator', () => {
  it.each([`set session_replication_role = 'replica'`, 'create role mine', 'create database mine'])(
    'may not: %s',
    async (statement) => {
      await expect(database.migrator.pool.query(statement)).rejects.toMatchObject({
        code: '42501',
      });
    },
  );
});

describe('an upstream without any right on what is ours', () => {
  it('marks by every kind of write, and the worker stores the totals', async () => {
    const { pool } = database.upstream;
    const id = await assign(pool, pair, '5.00');
    expect(await markedPairs(database.pool)).toEqual([key(pair)]);
    await pool.query('delete from person_occasions where person_id = $1', [other.personId]);
    await pool.query(
      'insert into person_occasions (person_id, occasion_id, budget_amount) values ($1, $2, 100)',
      [other.personId, other.occasionId],
    );
    await pool.query('update gift_persons set person_id = $2, amount = 7 where id = $1', [
      id,
      other.personId,
    ]);
    await pool.query('update person_occasions set budget_amount = 50');
    expect(await markedPairs(database.pool)).toEqual([key(pair), key(other)].toSorted());
    const program = startProgram(['start'], env('worker'));
    try {
      await eventually(
        async () => [await spent(database.pool, pair), await spent(database.pool, other)].join(),
        (totals) => totals === '0.00,7.00',
      );
      await pool.query('delete from gift_persons');
      await eventually(
        async () => await spent(database.pool, other),
        (total) => total === '0.00',
      );
    } finally {
      program.kill('SIGTERM');
      expect(await program.ended()).toMatchObject({ code: 0 });
    }
  });
});

describe('the commands', () => {
  // A worker that was stopped may leave a sweep, and "repair" would say that it goes on with it.
  beforeAll(async () => {
    await database.pool.query('delete from budget_sweeps where finished_at is null');
  });

  it.each([
    ['reader', ['verify']],
    ['reader', ['show', '--all']],
    ['reader', ['failures']],
    ['worker', ['verify']],
    ['worker', ['repair']],
    ['worker', ['failures', '--retry']],
    ['worker', ['status']],
    ['worker', ['fill', '--again']],
    ['worker', ['enqueue', 'budget.recalculate', '--pair', '1:1']],
    ['upstream', ['import', 'src/demo/family.csv']],
  ] as const)('as the %s: %j', async (grantee, args) => {
    expect(await runProgram(args, env(grantee))).toMatchObject({ code: 0, err: '' });
  });

  it('of another role say that it is not permitted, and where it says who may', async () => {
    for (const [grantee, args] of [
      ['reader', ['repair']],
      ['upstream', ['verify']],
      ['worker', ['import', 'src/demo/family.csv']],
    ] as const) {
      const { code, err } = await runProgram(args, env(grantee));
      expect(code).toBe(1);
      expect(err).toMatch(
        /^error: permission denied for \w+ \w+: "gift-budgets help grants" says what each command needs\n$/,
      );
    }
  });
});

describe('what "gift-budgets grants" prints', () => {
  it('deploys an empty database in a schema of its own, by roles with names that need quoting', async () => {
    const empty = await createEmptyDatabase();
    const suffix = inject('templateName');
    const names = GRANTEES.map((grantee) => [grantee, `O'Hara "$$ ${grantee} ${suffix}`] as const);
    const options = names.flatMap(([grantee, name]) => [`--${grantee}`, name]);
    const schema = 'app';
    const printed = async (...parts: string[]): Promise<string> => {
      const args = ['grants', ...parts, ...options, '--schema', schema];
      const { code, out, err } = await runProgram(args);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      return out;
    };
    const as = (grantee: Grantee): NodeJS.ProcessEnv => {
      const url = new URL(empty.url);
      url.username = encodeURIComponent(new Map(names).get(grantee)!);
      url.password = 'secret';
      url.searchParams.set('options', `-c search_path=${schema}`);
      return { DATABASE_URL: url.href, GIFT_BUDGETS_DASHBOARD_PORT: '0' };
    };
    try {
      await empty.pool.query(await printed('migrator'));
      await setPasswords(empty, names.slice(0, 1));
      expect(await runProgram(['migrate'], as('migrator'))).toMatchObject({ code: 0, err: '' });
      const all = await printed();
      await empty.pool.query(all);
      await empty.pool.query(all);
      await setPasswords(empty, names);
      const imported = await runProgram(['import', 'src/demo/family.csv'], as('upstream'));
      expect(imported.out).toContain('imported 61 assignments');
      const program = startProgram(['start'], as('worker'));
      await eventually(
        async () => (await runProgram(['verify'], as('reader'))).out,
        (out) => out === '46 budgets checked, 0 wrong\n',
      );
      program.kill('SIGTERM');
      expect(await program.ended()).toMatchObject({ code: 0 });
    } finally {
      await empty.close();
      await dropDatabaseRoles(names.map(([, name]) => name));
    }
  });

  it.each([
    [['grants', 'nobody'], /value 'nobody' is invalid.*migrator, reader, worker, upstream/],
    [['grants', '--worker'], /option '--worker <role>' argument missing/],
  ])('and says what is wrong with %j', async (args, message) => {
    const { code, err } = await runProgram(args);
    expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(message) });
  });
});

async function setPasswords(
  { pool }: TestDatabase,
  names: readonly (readonly [Grantee, string])[],
): Promise<void> {
  for (const [, name] of names) {
    await pool.query(`alter role ${pg.escapeIdentifier(name)} password 'secret'`);
  }
}

function env(grantee: Grantee): NodeJS.ProcessEnv {
  return { DATABASE_URL: database[grantee].url, GIFT_BUDGETS_DASHBOARD_PORT: '0' };
}

function key({ personId, occasionId }: Pair): string {
  return `${personId}-${occasionId}`;
}
