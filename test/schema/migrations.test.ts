import { readdir } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { type Database, migrate, openDatabase, pendingMigrations } from '../../src/database.ts';
import { catalog } from '../support/catalog.ts';
import { createEmptyDatabase } from '../support/servers.ts';

/** The names of all migrations, in their order, as the folder has them. */
const MIGRATIONS = (await readdir(new URL('../../migrations', import.meta.url)))
  .map((file) => file.replace('.ts', ''))
  .toSorted();
const BEFORE_BUDGETS = 'Migration20261123000200_create_gifts_and_assignments';

it('up, down and up again, with nothing of ours left in between', async () => {
  const database = await createEmptyDatabase();
  try {
    const applied = await migrate(database);
    expect(applied).toEqual(MIGRATIONS);
    expect(await pendingMigrations(database)).toEqual([]);
    expect(await database.orm.migrator.checkSchema()).toBe(false);
    await database.orm.migrator.down({ to: 0 });
    const { rows } = await database.pool.query(
      `select relname from pg_class
        where relnamespace = 'public'::regnamespace and relname not like 'gift_budgets_migrations%'
       union all select proname from pg_proc where pronamespace = 'public'::regnamespace`,
    );
    expect(rows).toEqual([]);
    expect(await migrate(database)).toEqual(applied);
  } finally {
    await database.close();
  }
});

it('up where person_occasions has rows gives them the defaults and marks them all', async () => {
  const database = await createEmptyDatabase();
  try {
    await database.orm.migrator.up({ to: BEFORE_BUDGETS });
    await database.pool.query(`insert into persons (name) values ('p')`);
    await database.pool.query(`insert into occasions (name) values ('o')`);
    await database.pool.query('insert into person_occasions values (1, 1)');
    await migrate(database);
    const { rows } = await database.pool.query('select * from person_occasions');
    expect(rows).toEqual([
      {
        person_id: '1',
        occasion_id: '1',
        budget_amount: null,
        budget_spent: '0.00',
        budget_currency: 'USD',
        budget_notes: null,
      },
    ]);
    const marks = await database.pool.query('select everything from pending_recalculations');
    expect(marks.rows).toEqual([{ everything: true }]);
  } finally {
    await database.close();
  }
});

it('each migration is undone by its own down, exactly', async () => {
  const database = await createEmptyDatabase();
  const { migrator } = database.orm;
  try {
    for (const name of await pendingMigrations(database)) {
      const before = await catalog(database);
      await migrator.up({ to: name });
      const after = await catalog(database);
      expect(after, name).not.toEqual(before);
      await migrator.down({ migrations: [name] });
      expect(await catalog(database), `${name} down`).toEqual(before);
      await migrator.up({ to: name });
      expect(await catalog(database), `${name} up again`).toEqual(after);
    }
  } finally {
    await database.close();
  }
});

it('down and up again with rows in every table keeps the assignments, and marks them', async () => {
  const database = await createEmptyDatabase();
  const { migrator } = database.orm;
  try {
    await migrate(database);
    await insertRows(database);
    await database.pool.query(
      `insert into recalculation_failures (person_id, occasion_id, reason) values (1, 1, 'r')`,
    );
    while ((await migrator.getExecuted()).at(-1)!.name !== BEFORE_BUDGETS) await migrator.down();
    await migrate(database);
    expect(await migrator.checkSchema()).toBe(false);
    const { rows } = await database.pool.query(
      `select person_id, occasion_id, amount, budget_spent, everything
         from gift_persons natural join person_occasions
        cross join (select everything from pending_recalculations) as marks`,
    );
    expect(rows).toEqual([
      { person_id: '1', occasion_id: '1', amount: '5.00', budget_spent: '0.00', everything: true },
    ]);
  } finally {
    await database.close();
  }
});

it('five that migrate one empty database at the same moment all succeed, and apply each once', async () => {
  const database = await createEmptyDatabase();
  const others = await Promise.all([1, 2, 3, 4].map(async () => await openDatabase(database.url)));
  try {
    const applied = await Promise.all([database, ...others].map(migrate));
    expect(applied.flat().toSorted()).toEqual(MIGRATIONS);
    const { rows } = await database.pool.query('select name from gift_budgets_migrations');
    expect(rows.map(({ name }) => name as string)).toEqual(MIGRATIONS);
  } finally {
    for (const other of others) await other.close();
    await database.close();
  }
});

async function insertRows({ pool }: Database): Promise<void> {
  await pool.query(
    `insert into persons (name) values ('p');
     insert into occasions (name) values ('o');
     insert into person_occasions (person_id, occasion_id) values (1, 1);
     insert into gifts (name) values ('g');
     insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, 1, 1, 5)`,
  );
}
