import { expect, it } from 'vitest';
import { migrate, pendingMigrations } from '../../src/database.ts';
import { createEmptyDatabase } from '../support/servers.ts';

const BEFORE_BUDGETS = 'Migration20261123000200_create_gifts_and_assignments';

it('up, down and up again, with nothing of ours left in between', async () => {
  const database = await createEmptyDatabase();
  try {
    const applied = await migrate(database);
    expect(applied).toHaveLength(9);
    expect(await pendingMigrations(database)).toEqual([]);
    expect(await database.orm.migrator.checkSchema()).toBe(false);
    await database.orm.migrator.down({ to: 0 });
    const { rows } = await database.pool.query(
      `select relname from pg_class
        where relnamespace = 'public'::regnamespace and relname not like 'mikro_orm%'
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

it('the budget columns and indexes are exactly as promised', async () => {
  const database = await createEmptyDatabase();
  try {
    await migrate(database);
    const { rows: columns } = await database.pool.query(
      `select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null,
              pg_get_expr(d.adbin, d.adrelid) as default
         from pg_attribute a left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        where a.attrelid = 'person_occasions'::regclass and a.attname like 'budget%' order by 1`,
    );
    expect(columns).toEqual([
      { name: 'budget_amount', type: 'numeric(10,2)', not_null: false, default: null },
      {
        name: 'budget_currency',
        type: 'character varying(3)',
        not_null: true,
        default: `'USD'::character varying`,
      },
      { name: 'budget_notes', type: 'text', not_null: false, default: null },
      { name: 'budget_spent', type: 'numeric(10,2)', not_null: true, default: '0' },
    ]);
    const { rows: indexes } = await database.pool.query(
      `select indexname as name, substring(indexdef from 'USING .*') as definition from pg_indexes
        where tablename in ('person_occasions', 'gift_persons') and indexname like 'idx%' order by 1`,
    );
    expect(indexes).toEqual([
      {
        name: 'idx_gift_person_contribution',
        definition: 'USING btree (person_id, occasion_id) INCLUDE (amount)',
      },
      { name: 'idx_gift_person_gift', definition: 'USING btree (gift_id)' },
      {
        name: 'idx_person_occasion_budget',
        definition: 'USING btree (person_id, occasion_id, budget_amount)',
      },
      { name: 'idx_person_occasion_occasion', definition: 'USING btree (occasion_id, person_id)' },
    ]);
    await database.pool.query(`insert into persons (name) values ('p')`);
    await database.pool.query(`insert into occasions (name) values ('o')`);
    for (const [column, bad] of [
      ['budget_amount', '-0.01'],
      ['budget_amount', 'NaN'],
      ['budget_spent', 'NaN'],
      ['budget_currency', 'usd'],
      ['budget_currency', 'US'],
    ]) {
      const insert = `insert into person_occasions (person_id, occasion_id, ${column}) values (1, 1, $1)`;
      await expect(database.pool.query(insert, [bad]), `${column} ${bad}`).rejects.toMatchObject({
        code: '23514',
      });
    }
  } finally {
    await database.close();
  }
});
