import { afterAll, beforeAll, expect, it } from 'vitest';
import { readDocument } from '../support/documents.ts';
import { createEmptyDatabase, createTestDatabase, type TestDatabase } from '../support/servers.ts';

let migrated: TestDatabase;
let described: TestDatabase;

beforeAll(async () => {
  [migrated, described] = await Promise.all([createTestDatabase(), createEmptyDatabase()]);
  await described.orm.schema.create();
});
afterAll(async () => {
  await Promise.all([migrated.close(), described.close()]);
});

/** What each must be the same in, as the database itself tells it; a row for each thing there is. */
const CATALOGUES = {
  'tables and columns': `
    select c.relname as of, a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
           a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation::text,
           pg_get_expr(d.adbin, d.adrelid) as default
      from pg_attribute a
      join pg_class c on c.oid = a.attrelid
      left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
     where c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped and ours(c.oid)`,
  'keys, foreign keys with what they do, and checks': `
    select conrelid::regclass::text as of, conname as name, contype, convalidated,
           pg_get_constraintdef(oid) as definition
      from pg_constraint
     where contype in ('p', 'u', 'f', 'c', 'x') and ours(conrelid)`,
  indexes: `
    select indrelid::regclass::text as of, indexrelid::regclass::text as name, indisvalid,
           pg_get_indexdef(indexrelid) as definition
      from pg_index
     where ours(indrelid)`,
  sequences: `
    select d.refobjid::regclass::text as of, s.seqrelid::regclass::text as name,
           s.seqtypid::regtype::text, s.seqstart::text, s.seqincrement::text, s.seqmax::text
      from pg_sequence s
      join pg_depend d on (d.classid, d.objid, d.deptype) = ('pg_class'::regclass, s.seqrelid, 'i')
     where ours(d.refobjid)`,
} as const;

it.each(Object.entries(CATALOGUES))(
  'the entities describe and the migrations make the same %s',
  async (_, catalogue) => {
    const [made, told] = [await rowsOf(migrated, catalogue), await rowsOf(described, catalogue)];
    expect(made.length).toBeGreaterThan(5);
    expect(told).toEqual(made);
  },
);

it('the migrations alone make views, functions and triggers, and docs/schema.md names them', async () => {
  const catalogue = `
    select case relkind when 'v' then 'view' else 'relation' end as of, relname as name
      from pg_class
     where relnamespace = 'public'::regnamespace and relkind in ('v', 'm', 'f')
     union all
    select 'function', proname from pg_proc where pronamespace = 'public'::regnamespace
     union all
    select 'trigger', tgname from pg_trigger where not tgisinternal`;
  expect(await rowsOf(described, catalogue)).toEqual([]);
  const made = await rowsOf(migrated, catalogue);
  expect(new Set(made.map((thing) => thing.of))).toEqual(new Set(['view', 'function', 'trigger']));
  // Of several triggers of a table the document tells the rest of the name: \`a_inserted\`, \`_updated\`.
  const document = readDocument('docs/schema.md');
  const isNamed = (name: string): boolean =>
    new RegExp(`\\b${name}\\b`).test(document) ||
    document.includes(`\`_${name.split('_').at(-1)}\``);
  expect(made.map(({ name }) => name).filter((name) => !isNamed(name))).toEqual([]);
});

async function rowsOf(
  { pool }: TestDatabase,
  catalogue: string,
): Promise<{ of: string; name: string }[]> {
  const isOurs = (oid: string): string =>
    `${oid} in (select oid from pg_class where relnamespace = 'public'::regnamespace
        and relname not like 'gift\\_budgets\\_%')`;
  const sql = catalogue.replaceAll(/ours\(([\w.]+)\)/g, (_, oid: string) => isOurs(oid));
  const { rows } = await pool.query<{ of: string; name: string }>(`${sql} order by 1, 2`);
  return rows;
}
