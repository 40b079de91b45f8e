import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { knownMigrations, migrate, openDatabase } from '../../src/database.ts';
import { eventually } from '../support/budgets.ts';
import { catalog } from '../support/catalog.ts';
import { ROOT } from '../support/documents.ts';
import { makeOthersTables, OTHERS_TABLES } from '../support/others-schema.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';

const MIKRO_ORM = 'node_modules/@mikro-orm/cli/cli.js';

let database: TestDatabase;

beforeEach(async () => {
  database = await createEmptyDatabase();
});
afterEach(async () => {
  await database.close();
});

/** `mikro-orm migration:up`, in a process of its own. */
function startUp(): { ended: Promise<string>; kill(): void } {
  const child = spawn(process.execPath, [MIKRO_ORM, 'migration:up'], {
    cwd: ROOT,
    env: { ...process.env, DATABASE_URL: database.url, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (said += text));
  }
  const close = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  return {
    ended: close.then(([code, signal]) => `${code ?? signal}\n${said}`),
    kill: () => void child.kill('SIGKILL'),
  };
}

async function applied(): Promise<string[]> {
  const { rows } = await database.pool.query<{ name: string }>(
    'select name from gift_budgets_migrations order by id',
  );
  return rows.map(({ name }) => name);
}

/** How many things the migrations have made so far. */
async function made(): Promise<number> {
  const { rows: found } = await database.pool.query(
    `select to_regclass('gift_budgets_objects') as ledger`,
  );
  if (found[0].ledger === null) return 0;
  const { rows } = await database.pool.query(
    'select count(*)::int as made from gift_budgets_objects',
  );
  return rows[0].made as number;
}

/** What the catalog has to say after `up`, on tables of others and undisturbed. */
async function undisturbed(): Promise<string[]> {
  const other = await createEmptyDatabase();
  try {
    await makeOthersTables(other.pool, OTHERS_TABLES);
    await migrate(other);
    return await catalog(other);
  } finally {
    await other.close();
  }
}

it('five that are started together all end well, and each migration ran once', async () => {
  await makeOthersTables(database.pool, OTHERS_TABLES);
  const ends = await Promise.all([1, 2, 3, 4, 5].map(async () => await startUp().ended));
  for (const end of ends) expect(end).toMatch(/^0\n[^]*Successfully migrated/);
  const processed = ends.flatMap((end) => end.match(/(?<=Applied ')\w+/g) ?? []);
  expect(processed.toSorted()).toEqual((await knownMigrations()).toSorted());
  expect(await applied()).toEqual((await knownMigrations()).toSorted());
});

describe('one that is killed can be run again, and ends right', () => {
  it('at any moment', async () => {
    await makeOthersTables(database.pool, OTHERS_TABLES);
    await database.pool.query(
      `insert into gift_persons (gift_id, person_id) select 1, 1 from generate_series(1, 200000)`,
    );
    const expected = await undisturbed();
    for (const least of [1, 5, 7, 12, 14, 17, 24]) {
      const up = startUp();
      await eventually(made, (count) => count >= least, 120_000);
      up.kill();
      expect(await up.ended).toMatch(/^(SIGKILL|0)/);
    }
    expect(await startUp().ended).toMatch(/^0\n/);
    expect(await catalog(database)).toEqual(expected);
    expect(await applied()).toEqual((await knownMigrations()).toSorted());
  });

  it('while it builds an index, which is built anew, and not before the old backend is gone', async () => {
    await makeOthersTables(database.pool, OTHERS_TABLES);
    const expected = await undisturbed();
    const writer = await database.pool.connect();
    try {
      const up = startUp();
      await eventually(made, (count) => count >= 7, 120_000);
      // A writer's open transaction is what the index waits for.
      await writer.query(`begin; update gift_persons set role = 'x'`);
      const building = async () =>
        await database.pool.query(
          `select from pg_stat_activity where query like 'create index concurrently%' and state = 'active'`,
        );
      await eventually(building, ({ rowCount }) => rowCount === 1, 60_000);
      up.kill();
      await up.ended;
      const again = startUp();
      await eventually(building, ({ rowCount }) => rowCount === 0);
      await writer.query('commit');
      expect(await again.ended).toMatch(/^0\n/);
    } finally {
      writer.release();
    }
    const { rows } = await database.pool.query(
      `select indexrelid::regclass::text from pg_index where not indisvalid`,
    );
    expect(rows).toEqual([]);
    expect(await catalog(database)).toEqual(expected);
  });
});

it.each([
  ['that nobody knows of', 'before'],
  ['that was ours', 'after'],
])('an invalid index %s is found, and built anew', async (_, when) => {
  await makeOthersTables(database.pool, OTHERS_TABLES);
  const expected = await undisturbed();
  const { migrator } = database.orm;
  const name = 'Migration20261123000250_index_assignments';
  await migrator.up({ to: 'Migration20261123000200_create_gifts_and_assignments' });
  if (when === 'after') await migrator.up({ to: name });
  else await database.pool.query('create index idx_gift_person_gift on gift_persons (gift_id)');
  await database.pool.query(
    `update pg_index set indisvalid = false where indexrelid = 'idx_gift_person_gift'::regclass`,
  );
  const { rows: before } = await database.pool.query(
    `select 'idx_gift_person_gift'::regclass::oid`,
  );
  await migrator.unlogMigration(name);
  await migrate(database);
  const { rows: after } = await database.pool.query(`select 'idx_gift_person_gift'::regclass::oid`);
  expect(after).not.toEqual(before);
  expect(await catalog(database)).toEqual(expected);
});

it('a table that somebody holds is waited for with patience; then it is said who does', async () => {
  await makeOthersTables(database.pool, OTHERS_TABLES);
  const holder = await database.pool.connect();
  const retries = { count: 0 };
  const impatient = await openDatabase(database.url, {
    migrating: { lockPatienceMs: 1_000, watchRetries: () => (retries.count += 1) },
  });
  try {
    await holder.query(`set application_name = 'a backup'`);
    await holder.query('begin; select from person_occasions');
    const error = (await migrate(impatient).catch((reason: unknown) => reason)) as Error;
    expect(error).toMatchObject({ code: 'MIGRATION_LOCK_TIMEOUT' });
    expect(error.message).toMatch(
      /^gave up after 1 s, in which a table could not be locked: pid \d+ \(a backup\) holds person_occasions, idle in transaction for \d+ s: begin; select from person_occasions\. Let that end, and run it again/,
    );
    expect(retries.count).toBeGreaterThan(1);
    const patient = await openDatabase(database.url);
    const migrating = migrate(patient);
    await holder.query('commit');
    await migrating;
    await patient.close();
  } finally {
    holder.release(true);
    await impatient.close();
  }
  expect(await applied()).toEqual((await knownMigrations()).toSorted());
});

it('the option --schema is refused, and says what to do instead', async () => {
  await expect(database.orm.migrator.up({ schema: 'gifts' })).rejects.toThrow(
    'set the search_path of the role or the database instead (alter role … set search_path = gifts)',
  );
  const { rows } = await database.pool.query(
    `select to_regclass('gift_budgets_migrations') as made, to_regnamespace('gifts') as schema`,
  );
  expect(rows).toEqual([{ made: null, schema: null }]);
});

it('in another schema, that of the search_path, it is run again, and undone', async () => {
  const name = new URL(database.url).pathname.slice(1);
  await database.pool.query(`create schema gift; alter database ${name} set search_path = gift`);
  for (const expected of [(await knownMigrations()).length, 0]) {
    const there = await openDatabase(database.url);
    expect(await migrate(there)).toHaveLength(expected);
    await there.close();
  }
  const there = await openDatabase(database.url);
  await there.orm.migrator.down({ to: 0 });
  await there.close();
  const { rows } = await database.pool.query(
    `select oid::regclass::text as name from pg_class
      where relkind in ('r', 'v') and relnamespace in ('gift'::regnamespace, 'public'::regnamespace)`,
  );
  expect(rows).toEqual([{ name: 'gift.gift_budgets_migrations' }]);
});
