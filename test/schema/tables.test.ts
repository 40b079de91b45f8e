import { afterAll, beforeAll, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});

const ID = 'id bigint not null by default as identity';

it('every column has exactly its type, nullability and default', async () => {
  const { rows } = await database.pool.query<{ relname: string; columns: string[] }>(
    `select c.relname, array_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
              case when a.attnotnull then 'not null' end,
              case a.attidentity when 'd' then 'by default as identity' when 'a' then 'always as identity' end,
              'default ' || pg_get_expr(d.adbin, d.adrelid)) order by a.attnum) as columns
       from pg_attribute a
       join pg_class c on c.oid = a.attrelid
       left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
      where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'p', 'm')
        and c.relname not like 'gift_budgets_migrations%' and a.attnum > 0 and not a.attisdropped
      group by c.relname`,
  );
  expect(Object.fromEntries(rows.map(({ relname, columns }) => [relname, columns]))).toEqual({
    persons: [ID, 'name text not null'],
    occasions: [ID, 'name text not null', 'date date'],
    gifts: [ID, 'name text not null'],
    person_occasions: [
      'person_id bigint not null',
      'occasion_id bigint not null',
      'budget_amount numeric(10,2)',
      'budget_spent numeric(10,2) not null default 0',
      `budget_currency character varying(3) not null default 'USD'::character varying`,
      'budget_notes text',
    ],
    gift_persons: [
      ID,
      'gift_id bigint not null',
      'person_id bigint not null',
      'occasion_id bigint',
      'amount numeric(10,2)',
    ],
    budget_contributions: ['person_id bigint', 'occasion_id bigint', 'amount numeric(10,2)'],
    budget_status: [
      'person_id bigint',
      'occasion_id bigint',
      'amount numeric(10,2)',
      'spent numeric(10,2)',
      'remaining numeric',
      'percent_used numeric',
      'is_over boolean',
      'is_pending boolean',
      'currency character varying(3)',
    ],
    pending_recalculations: [
      ID,
      'person_id bigint',
      'occasion_id bigint',
      'everything boolean not null default false',
      'marked_at timestamp with time zone not null default clock_timestamp()',
    ],
    recalculation_failures: [
      'person_id bigint not null',
      'occasion_id bigint not null',
      'reason text not null',
      'total text',
      'attempts integer not null default 1',
      'first_failed_at timestamp with time zone not null default clock_timestamp()',
      'last_failed_at timestamp with time zone not null default clock_timestamp()',
    ],
    budget_sweeps: [
      ID,
      'mode text not null',
      'started_at timestamp with time zone not null default clock_timestamp()',
      'finished_at timestamp with time zone',
      'person_id bigint',
      'occasion_id bigint',
      'checked bigint not null default 0',
      'drifted bigint not null default 0',
      'repaired bigint not null default 0',
      'failed bigint not null default 0',
    ],
    gift_budgets_objects: ['kind text not null', 'on_table text not null', 'name text not null'],
    budget_sweep_findings: [
      ID,
      'sweep_id bigint not null',
      'person_id bigint not null',
      'occasion_id bigint not null',
      'stored text not null',
      'right_total text',
      'outcome text not null',
      'reason text',
      'found_at timestamp with time zone not null default clock_timestamp()',
    ],
  });
});

it('the keys, foreign keys and checks are exactly these, and all are validated', async () => {
  const { rows } = await database.pool.query<{ name: string; definition: string }>(
    `select conname as name, pg_get_constraintdef(oid) as definition, convalidated
       from pg_constraint
      where connamespace = 'public'::regnamespace and contype in ('p', 'u', 'f', 'c', 'x')
        and conrelid::regclass::text not like 'gift_budgets_migrations%'`,
  );
  const cascades = 'ON UPDATE CASCADE ON DELETE CASCADE';
  expect(Object.fromEntries(rows.map(({ name, definition }) => [name, definition]))).toEqual({
    persons_pkey: 'PRIMARY KEY (id)',
    occasions_pkey: 'PRIMARY KEY (id)',
    gifts_pkey: 'PRIMARY KEY (id)',
    gift_persons_pkey: 'PRIMARY KEY (id)',
    pending_recalculations_pkey: 'PRIMARY KEY (id)',
    person_occasions_pkey: 'PRIMARY KEY (person_id, occasion_id)',
    budget_sweeps_pkey: 'PRIMARY KEY (id)',
    budget_sweep_findings_pkey: 'PRIMARY KEY (id)',
    budget_sweep_findings_sweep_id_foreign:
      'FOREIGN KEY (sweep_id) REFERENCES budget_sweeps(id) ON DELETE CASCADE',
    budget_sweeps_mode_check: `CHECK ((mode = ANY (ARRAY['report'::text, 'repair'::text])))`,
    gift_budgets_objects_pkey: 'PRIMARY KEY (kind, on_table, name)',
    recalculation_failures_pkey: 'PRIMARY KEY (person_id, occasion_id)',
    person_occasions_person_id_foreign: `FOREIGN KEY (person_id) REFERENCES persons(id) ${cascades}`,
    person_occasions_occasion_id_foreign: `FOREIGN KEY (occasion_id) REFERENCES occasions(id) ${cascades}`,
    gift_persons_gift_id_foreign: `FOREIGN KEY (gift_id) REFERENCES gifts(id) ${cascades}`,
    gift_persons_person_id_foreign: `FOREIGN KEY (person_id) REFERENCES persons(id) ${cascades}`,
    gift_persons_person_id_occasion_id_foreign: `FOREIGN KEY (person_id, occasion_id) REFERENCES person_occasions(person_id, occasion_id) ${cascades}`,
    gift_persons_amount_check: `CHECK ((amount <> 'NaN'::numeric))`,
    person_occasions_budget_amount_check: `CHECK (((budget_amount >= (0)::numeric) AND (budget_amount <> 'NaN'::numeric)))`,
    person_occasions_budget_spent_check: `CHECK ((budget_spent <> 'NaN'::numeric))`,
    person_occasions_budget_currency_check: `CHECK (((budget_currency)::text ~ '^[A-Z]{3}$'::text))`,
    pending_recalculations_pair_check:
      'CHECK ((everything OR ((person_id IS NOT NULL) AND (occasion_id IS NOT NULL))))',
  });
  expect(rows.filter((row) => !(row as { convalidated?: boolean }).convalidated)).toEqual([]);
});

it('the indexes beside the primary keys are exactly these', async () => {
  const { rows } = await database.pool.query<{ name: string; definition: string }>(
    `select indexname as name, tablename || substring(indexdef from ' USING .*') as definition
       from pg_indexes
      where schemaname = 'public' and indexname not like '%\\_pkey' and tablename not like 'gift_budgets_migrations%'`,
  );
  expect(Object.fromEntries(rows.map(({ name, definition }) => [name, definition]))).toEqual({
    idx_person_occasion_budget:
      'person_occasions USING btree (person_id, occasion_id, budget_amount)',
    idx_person_occasion_occasion: 'person_occasions USING btree (occasion_id, person_id)',
    idx_gift_person_gift: 'gift_persons USING btree (gift_id)',
    idx_gift_person_contribution:
      'gift_persons USING btree (person_id, occasion_id) INCLUDE (amount)',
    idx_pending_recalculation_pair: 'pending_recalculations USING btree (person_id, occasion_id)',
    idx_budget_sweep_started: 'budget_sweeps USING btree (started_at)',
    idx_budget_sweep_unfinished: 'budget_sweeps USING btree ((true)) WHERE (finished_at IS NULL)',
    idx_budget_sweep_finding_sweep: 'budget_sweep_findings USING btree (sweep_id, id)',
    idx_pending_recalculation_everything:
      'pending_recalculations USING btree (id) WHERE everything',
  });
});

it('budget_spent is in no index: not as a key, not included, not in an expression or predicate', async () => {
  const { rows } = await database.pool.query(
    `select i.indexrelid::regclass::text
       from pg_index i
       join pg_attribute a on a.attrelid = i.indrelid and a.attname = 'budget_spent'
      where a.attnum = any (i.indkey)
         or exists (select from pg_depend d
                     where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                       and d.refobjid = i.indrelid and d.refobjsubid = a.attnum)`,
  );
  expect(rows).toEqual([]);
});

it('budgets keep room on their pages, and marks are vacuumed early and never truncated', async () => {
  const { rows } = await database.pool.query<{ relname: string; reloptions: string[] }>(
    `select relname, reloptions from pg_class
      where relnamespace = 'public'::regnamespace and reloptions is not null`,
  );
  expect(Object.fromEntries(rows.map(({ relname, reloptions }) => [relname, reloptions]))).toEqual({
    person_occasions: ['fillfactor=85'],
    pending_recalculations: [
      'autovacuum_vacuum_scale_factor=0',
      'autovacuum_vacuum_threshold=1000',
      'autovacuum_vacuum_insert_scale_factor=0',
      'autovacuum_vacuum_insert_threshold=10000',
      'autovacuum_vacuum_cost_delay=0',
      'vacuum_truncate=off',
    ],
  });
});
