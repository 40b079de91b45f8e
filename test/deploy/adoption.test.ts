import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BudgetReader } from '../../src/budgets/reader.ts';
import { type Database, migrate, openDatabase } from '../../src/database.ts';
import { Gift, GiftPerson } from '../../src/entities/assignments.ts';
import { Occasion, Person, PersonOccasion } from '../../src/entities/budgets.ts';
import { GiftEventClient } from '../../src/events/client.ts';
import { prepareQueue } from '../../src/queue.ts';
import { catchUpOnce } from '../../src/recalculation/catch-up.ts';
import { openApp } from '../support/app.ts';
import { eventually, wrongTotals } from '../support/budgets.ts';
import { catalog } from '../support/catalog.ts';
import { makeOthersTables, OTHERS_TABLES, type OthersTable } from '../support/others-schema.ts';
import { runProgram } from '../support/run-program.ts';
import { createEmptyDatabase, describeBackends, type TestDatabase } from '../support/servers.ts';

let server: TestDatabase;
/** The database, opened anew for each test: MikroORM remembers which tables it has seen. */
let database: Database;

beforeAll(async () => {
  server = await createEmptyDatabase();
});
afterAll(async () => {
  await server.close();
});
beforeEach(async () => {
  await server.pool.query('drop schema public cascade; create schema public');
});

async function onDatabase<T>(work: () => Promise<T>): Promise<T> {
  database = await openDatabase(server.url);
  try {
    return await work();
  } finally {
    await database.close();
  }
}

const combinations = Array.from({ length: 2 ** OTHERS_TABLES.length }, (_, bits) =>
  OTHERS_TABLES.filter((_table, place) => bits & (1 << place)),
);

const TRIGGER_OF_THEIRS = `
  create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
  create trigger touch before update on person_occasions for each row execute function touch();
  create view budgets_of_theirs as select * from person_occasions`;

describe('tables that others made are adopted', () => {
  it.each(combinations.map((tables) => [tables.join(', ') || 'none', tables] as const))(
    'with %s',
    async (_, tables) => {
      await makeOthersTables(server.pool, tables);
      await upWorkDown(tables);
    },
  );

  const all = [...OTHERS_TABLES];

  it.each([
    ['keys of 16 bits', 'alter table persons alter id type smallint'],
    ['keys of 64 bits', 'alter table person_occasions alter person_id type bigint'],
    [
      'the pair the other way round, as an index',
      `alter table person_occasions drop constraint person_occasions_person_id_occasion_id_key;
       create unique index on person_occasions (occasion_id, person_id) include (role)`,
    ],
    [
      'assignments without a key of their own',
      'alter table gift_persons drop column id, add primary key (gift_id, person_id)',
    ],
    [
      'assignments with an occasion and an amount, of a wider type and maybe of nobody',
      `alter table gift_persons add occasion_id bigint, add amount numeric(14,4), alter person_id drop not null;
       insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, 1, 1, 2.5), (1, null, 1, 1)`,
    ],
    [
      'names, dates and a planned amount',
      `alter table persons add name varchar(20);
       alter table occasions add name text, add date timestamptz default now();
       alter table person_occasions add budget_amount numeric(12,2) default 7`,
    ],
    ['storage of their own', 'alter table person_occasions set (fillfactor = 70)'],
    ['an index of ours already', 'create index idx_gift_person_gift on gift_persons (gift_id)'],
    ['triggers of their own', TRIGGER_OF_THEIRS],
  ])('with %s', async (_, change) => {
    await makeOthersTables(server.pool, all);
    await server.pool.query(change);
    await upWorkDown(all);
  });
});

/** Migrates, uses what is there then, and undoes it: nothing is left but what was there before. */
async function upWorkDown(tables: readonly OthersTable[]): Promise<void> {
  const before = await catalog(server);
  await onDatabase(async () => {
    await migrate(database);
    // All of it is still there, but for the storage parameters of that table, which are on its own line.
    const kept = before.filter((line) => line !== 'r person_occasions');
    expect(await catalog(server)).toEqual(expect.arrayContaining(kept));
    await useIt(tables);
    await database.orm.migrator.down({ to: 0 });
    expect(await catalog(server)).toEqual(before);
    const { rows } = await server.pool.query('select name from mikro_orm_migrations');
    expect(rows).toEqual([{ name: 'Migration20990101000000_theirs' }]);
  });
}

async function useIt(tables: readonly OthersTable[]): Promise<void> {
  const { pool, orm } = database;
  const theirBudgets = tables.includes('person_occasions');
  await pool.query(
    `insert into persons (id, name) values (70, 'Bea');
     insert into occasions (id, name) values (80, 'Easter');
     insert into gifts (id, name) values (90, 'cup');
     insert into person_occasions (person_id, occasion_id) values (70, 80);
     insert into gift_persons (gift_id, person_id, occasion_id, amount) values (90, 70, 80, 12.5)`,
  );
  await catchUp(database);
  expect(await wrongTotals(pool)).toEqual([]);
  const reader = new BudgetReader(pool);
  expect(await reader.budget({ personId: 70, occasionId: 80 }, { pending: true })).toMatchObject({
    spent: '12.50',
    isPending: false,
  });
  expect((await reader.budgetsOfOccasion(80)).items).toHaveLength(1);
  const { rows } = await pool.query(
    'select spent, is_pending from budget_status where person_id = 70',
  );
  expect(rows).toEqual([{ spent: '12.50', is_pending: false }]);

  const em = orm.em.fork();
  expect(await em.findOneOrFail(Person, '70')).toMatchObject({ id: '70', name: 'Bea' });
  expect(await em.findOneOrFail(Occasion, '80')).toMatchObject({ name: 'Easter' });
  expect(await em.findOneOrFail(Gift, '90')).toMatchObject({ name: 'cup' });
  const person = em.create(Person, { id: '71', name: 'Cy' });
  em.create(PersonOccasion, {
    person,
    occasion: em.getReference(Occasion, '80'),
    budgetAmount: '5.00',
    budgetCurrency: 'USD',
    budgetSpent: '0.00',
  });
  await em.flush();
  if (await hasId(database)) {
    const [assignment] = await em.find(GiftPerson, { person: '70' });
    assignment!.amount = '20.00';
    await em.flush();
    await catchUp(database);
    expect(await reader.budget({ personId: '70', occasionId: '80' })).toMatchObject({
      spent: '20.00',
    });
  }
  const { rows: budgets } = await pool.query('select count(*)::int from person_occasions');
  expect(budgets).toEqual([{ count: theirBudgets ? 3 : 2 }]);
}

async function hasId({ pool }: Database): Promise<boolean> {
  const { rowCount } = await pool.query(
    `select from pg_attribute where attrelid = 'gift_persons'::regclass and attname = 'id' and not attisdropped`,
  );
  return rowCount === 1;
}

async function catchUp({ pool }: Pick<Database, 'pool'>): Promise<void> {
  while (await catchUpOnce({ pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 }));
}

describe('what cannot be adopted is refused before anything is changed', () => {
  it.each([
    [
      'keys that are no integers',
      `create table persons (id uuid primary key); create table gifts (id text primary key)`,
      [
        'persons.id is of type uuid; needed: smallint, integer or bigint',
        'gifts.id is of type text',
      ],
    ],
    [
      'no unique pair',
      `create table person_occasions (id serial primary key, person_id int not null, occasion_id int not null);
       create unique index on person_occasions (person_id, occasion_id) where person_id > 0`,
      ['person_occasions has no unique key of (person_id, occasion_id); needed: a primary key'],
    ],
    [
      'a unique pair that is checked at the commit',
      `create table person_occasions (person_id int not null, occasion_id int not null,
         unique (person_id, occasion_id) deferrable)`,
      ['person_occasions has no unique key of (person_id, occasion_id)'],
    ],
    [
      'a pair that may be null',
      'create table person_occasions (person_id int not null, occasion_id int, unique (person_id, occasion_id))',
      ['person_occasions.occasion_id may be null; needed: not null'],
    ],
    [
      'a column of ours of another type',
      `create table gift_persons (gift_id int not null, person_id int not null, amount money);
       create table person_occasions (person_id int, occasion_id int, primary key (person_id, occasion_id),
         budget_spent float8 not null, budget_amount numeric(8,2), budget_currency text)`,
      [
        'gift_persons.amount is of type money; needed: numeric',
        'person_occasions.budget_spent is of type double precision; needed: numeric(10,2)',
        'person_occasions.budget_amount is of type numeric(8,2)',
        'person_occasions.budget_currency may be null',
      ],
    ],
    [
      'a total that nobody can write',
      `create table person_occasions (person_id int, occasion_id int, primary key (person_id, occasion_id),
         budget_spent numeric(10,2) not null generated always as (1) stored)`,
      ['person_occasions.budget_spent is a generated column; needed: one that can be written'],
    ],
    [
      'a missing column that only they can fill',
      'create table gift_persons (id serial primary key, person_id int not null)',
      ['gift_persons.gift_id is missing; needed: a column of type smallint, integer or bigint'],
    ],
    [
      'no ordinary table',
      `create table gift_persons (gift_id int, person_id int) partition by hash (person_id);
       create view persons as select 1 as id`,
      ['gift_persons is a partitioned table; needed: an ordinary table', 'persons is a view'],
    ],
    [
      'names that are taken',
      `create table pending_recalculations (id int);
       create view budget_status as select 1 as one;
       create function mark_budget(text) returns void language sql as 'select';
       create table elsewhere (id int);
       create index idx_gift_person_gift on elsewhere (id)`,
      [
        'a relation pending_recalculations is there, and was not made by gift-budgets',
        'a relation budget_status is there',
        'a function mark_budget is there',
        'the index name idx_gift_person_gift is taken by elsewhere USING btree (id); needed: gift_persons',
      ],
    ],
  ])('%s', async (_, tables, messages) => {
    await server.pool.query(tables);
    const before = await catalog(server);
    await onDatabase(async () => {
      const error = (await migrate(database).catch((refusal: unknown) => refusal)) as Error;
      expect(error).toMatchObject({ name: 'AdoptionError', code: 'SCHEMA_NOT_ADOPTABLE' });
      for (const message of messages) expect(error.message).toContain(message);
      expect(error.message.match(/^ {2}- /gm)).toHaveLength(messages.length);
    });
    expect(await catalog(server)).toEqual(before);
    const { rows } = await server.pool.query(`select to_regclass('gift_budgets_migrations') as t`);
    expect(rows).toEqual([{ t: null }]);
  });

  it('tables of another role', async () => {
    await makeOthersTables(server.pool, ['persons', 'occasions', 'gifts', 'gift_persons']);
    const role = `migrator_${process.pid}`;
    await server.pool.query(`create role ${role} login password 'only for the tests';
      grant create, usage on schema public to ${role}; grant select on all tables in schema public to ${role}`);
    const url = new URL(server.url);
    [url.username, url.password] = [role, 'only for the tests'];
    const theirs = await openDatabase(url.href);
    try {
      await expect(migrate(theirs)).rejects.toThrow(
        /persons belongs to another role[^]*occasions belongs[^]*gifts belongs[^]*gift_persons belongs/,
      );
      await server.pool.query(
        `alter table persons add name text; alter table occasions add name text, add date date;
         alter table gift_persons owner to ${role}`,
      );
      await expect(migrate(theirs)).rejects.toThrow(
        /persons cannot be referred to by this role; needed: grant references on persons/,
      );
    } finally {
      await theirs.close();
      await server.pool.query(`drop owned by ${role} cascade; drop role ${role}`);
    }
  });

  it('tables in another schema of the search_path', async () => {
    await server.pool.query('drop schema if exists gift cascade; create schema gift');
    await makeOthersTables(server.pool, ['persons']);
    const name = new URL(server.url).pathname.slice(1);
    await server.pool.query(`alter database ${name} set search_path = gift, public`);
    const there = await openDatabase(server.url);
    try {
      await expect(migrate(there)).rejects.toThrow(
        'persons is in the schema public; needed: all tables in gift, which is the first of the search_path',
      );
    } finally {
      await there.close();
      await server.pool.query(`alter database ${name} reset search_path; drop schema gift cascade`);
    }
  });

  it('says so at the command line, in words', async () => {
    await server.pool.query('create table persons (id uuid primary key)');
    const { code, err } = await runProgram(['migrate'], { DATABASE_URL: server.url });
    expect(code).toBe(1);
    expect(err).toBe(
      'error: the tables that are there do not fit, and nothing was changed:\n' +
        '  - persons.id is of type uuid; needed: smallint, integer or bigint\n' +
        'docs/adopting.md says what is needed, and why.\n',
    );
  });
});

describeBackends('on an adopted database', (open) => {
  it('worker, events, reader and commands work', async () => {
    await makeOthersTables(server.pool, OTHERS_TABLES);
    await server.pool.query('alter table gift_persons drop column id');
    await onDatabase(async () => {
      await migrate(database);
      const { pool } = database;
      const adopted: TestDatabase = {
        ...server,
        ...database,
        worker: { url: server.url, pool },
        url: server.url,
        close: async () => {},
      };
      const queue = await open(adopted);
      await prepareQueue(queue);
      const app = await openApp(adopted, queue);
      const events = new GiftEventClient(queue);
      const reader = new BudgetReader(pool);
      try {
        await pool.query(
          `insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, 1, 1, 30)`,
        );
        await events.giftAssigned([{ personId: 1, occasionId: 1 }]);
        expect(await reader.waitUntilFresh({ personId: 1, occasionId: 1 }, 20_000)).toMatchObject({
          spent: '30.00',
        });
        await pool.query('alter table gift_persons disable trigger user');
        await pool.query('update gift_persons set amount = 31 where amount = 30');
        await pool.query('alter table gift_persons enable trigger user');
        await events.giftRepriced([{ personId: 1, occasionId: 1 }]);
        await eventually(
          async () => (await reader.budget({ personId: 1, occasionId: 1 }))!.spent,
          (spent) => spent === '31.00',
        );
      } finally {
        await events.close();
        await app.stop();
      }
      const env = { DATABASE_URL: server.url };
      expect((await runProgram(['verify'], env)).code).toBe(0);
      await pool.query('alter table person_occasions disable trigger user');
      await pool.query('update person_occasions set budget_spent = 1');
      await pool.query('alter table person_occasions enable trigger user');
      expect((await runProgram(['verify'], env)).code).toBe(1);
      expect((await runProgram(['repair'], env)).out).toContain('31.00');
      const explained = await runProgram(['explain', '--person', '1', '--occasion', '1'], env);
      expect(explained.out).toMatch(/stored\s+31.00\s+right\s+31.00/);
      expect((await runProgram(['show', '--all'], env)).out).toContain('31.00');
    });
  });
});
