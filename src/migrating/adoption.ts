import {
  OUR_FUNCTIONS,
  OUR_INDEXES,
  OUR_RELATIONS,
  OUR_TRIGGERS,
  WANTED,
  type WantedColumn,
  type WantedTable,
} from './wanted.ts';

/**
 * Whether the migrations can work with the tables that are there: those of others, made before us, which
 * are adopted as they are. Asked before anything is changed, and answered with everything that does not
 * fit, so that nobody has to find it out one by one.
 */

/** Asks the database; a pg.Client's query has this form. */
export type Ask = (sql: string) => Promise<{ rows: object[] }>;

/** What is there cannot be adopted; nothing was changed. */
export class AdoptionError extends Error {
  readonly code = 'SCHEMA_NOT_ADOPTABLE';
  override readonly name = 'AdoptionError';

  constructor(misfits: readonly string[]) {
    super(
      'the tables that are there do not fit, and nothing was changed:\n' +
        `${misfits.map((misfit) => `  - ${misfit}`).join('\n')}\n` +
        'docs/adopting.md says what is needed, and why.',
    );
  }
}

interface FoundTable {
  readonly name: string;
  readonly kind: string;
  readonly isOwner: boolean;
  readonly canReference: boolean;
  readonly columns: Readonly<Record<string, FoundColumn>>;
  /** The columns of each key that a foreign key and ON CONFLICT can name, sorted. */
  readonly keys: readonly (readonly string[])[];
}

interface FoundColumn {
  readonly type: string;
  readonly notNull: boolean;
  readonly isGenerated: boolean;
}

/** @throws {AdoptionError} where something does not fit. */
export async function mustBeAdoptable(ask: Ask): Promise<void> {
  const misfits = await findMisfits(ask);
  if (misfits.length > 0) throw new AdoptionError(misfits);
}

async function findMisfits(ask: Ask): Promise<string[]> {
  const { schema, mayCreate } = await readSchema(ask);
  if (schema === null) {
    return ['no schema of the search_path exists: create one, or set another search_path'];
  }
  const tables = await readTables(ask);
  return [
    ...(mayCreate ? [] : [`this role may not create anything in the schema ${schema}`]),
    ...(await findElsewhere(ask, schema)),
    ...tables.flatMap((table) => misfitsOf(table, tables)),
    ...(await findTakenNames(ask)),
  ];
}

async function readSchema(ask: Ask): Promise<{ schema: string | null; mayCreate: boolean }> {
  const { rows } = await ask(
    `select current_schema() as schema,
            coalesce(has_schema_privilege(current_schema(), 'create'), false) as "mayCreate"`,
  );
  return rows[0] as { schema: string | null; mayCreate: boolean };
}

/** Tables that the search_path finds behind the schema in which new ones would be created. */
async function findElsewhere(ask: Ask, schema: string): Promise<string[]> {
  const { rows } = await ask(
    `select name, n.nspname as schema
       from unnest(${array(Object.keys(WANTED))}) as name
       join pg_class c on c.oid = to_regclass(name)
       join pg_namespace n on n.oid = c.relnamespace
      where n.nspname <> current_schema()`,
  );
  return (rows as { name: string; schema: string }[]).map(
    (found) =>
      `${found.name} is in the schema ${found.schema}; needed: all tables in ${schema}, which is the ` +
      'first of the search_path',
  );
}

/**
 * A key is one that a foreign key can refer to: not partial, not deferrable, of columns alone.
 */
async function readTables(ask: Ask): Promise<FoundTable[]> {
  const { rows } = await ask(
    `select c.relname as name, c.relkind as kind, pg_has_role(c.relowner, 'usage') as "isOwner",
            has_table_privilege(c.oid, 'references') as "canReference",
            (select coalesce(json_object_agg(a.attname, json_build_object(
                      'type', format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull,
                      'isGenerated', a.attgenerated <> '')), '{}')
               from pg_attribute a
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
            (select coalesce(json_agg((
                      select json_agg(a.attname order by a.attname)
                        from pg_attribute a
                       where a.attrelid = i.indrelid
                         and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1]))), '[]')
               from pg_index i
              where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                and i.indpred is null and i.indexprs is null) as keys
       from pg_class c
      where c.relnamespace = (select oid from pg_namespace where nspname = current_schema())
        and c.relname = any (${array(Object.keys(WANTED))})
      order by array_position(${array(Object.keys(WANTED))}, c.relname::text)`,
  );
  return rows as FoundTable[];
}

function misfitsOf(table: FoundTable, tables: readonly FoundTable[]): string[] {
  const { name, kind } = table;
  const wanted = WANTED[name]!;
  if (kind !== 'r') {
    return [`${name} is ${KINDS[kind] ?? 'no table'}; needed: an ordinary table`];
  }
  return [
    ...Object.entries(wanted.columns).flatMap(([column, want]) =>
      misfitsOfColumn(`${name}.${column}`, want, table.columns[column]),
    ),
    ...misfitsOfKey(table, wanted),
    ...misfitsOfRights(table, wanted, tables),
  ];
}

const KINDS: Readonly<Record<string, string>> = {
  p: 'a partitioned table',
  v: 'a view',
  m: 'a materialized view',
  f: 'a foreign table',
};

function misfitsOfColumn(
  column: string,
  wanted: WantedColumn,
  found: FoundColumn | undefined,
): string[] {
  if (found === undefined) {
    return wanted.isAdded
      ? []
      : [`${column} is missing; needed: a column of type ${wanted.needed}`];
  }
  const misfits: string[] = [];
  if (!wanted.types.test(found.type)) {
    misfits.push(`${column} is of type ${found.type}; needed: ${wanted.needed}`);
  }
  if (wanted.notNull && !found.notNull) misfits.push(`${column} may be null; needed: not null`);
  if (wanted.isWritten && found.isGenerated) {
    misfits.push(`${column} is a generated column; needed: one that can be written`);
  }
  return misfits;
}

function misfitsOfKey({ name, keys, columns }: FoundTable, { key }: WantedTable): string[] {
  // Where a column of it is missing, that is said already.
  if (key === undefined || key.some((column) => !(column in columns))) return [];
  if (keys.some((found) => found.join() === key.join())) return [];
  const pair = key.toReversed().join(', ');
  return [
    `${name} has no unique key of (${pair}); needed: a primary key, or a unique constraint or index, of ` +
      `exactly ${key.length === 1 ? 'that column' : 'those columns'}, without a condition and not deferrable`,
  ];
}

function misfitsOfRights(
  { name, columns, isOwner, canReference }: FoundTable,
  wanted: WantedTable,
  tables: readonly FoundTable[],
): string[] {
  const lacks = Object.keys(wanted.columns).some((column) => !(column in columns));
  if ((wanted.isChanged || lacks) && !isOwner) {
    return [
      `${name} belongs to another role; needed: to be its owner, or a member of it, to change it`,
    ];
  }
  const created = wanted.referencedBy.filter(
    (other) => !tables.some((found) => found.name === other),
  );
  return created.length > 0 && !canReference
    ? [`${name} cannot be referred to by this role; needed: grant references on ${name}`]
    : [];
}

/** What is there under a name of ours, but was not made by us. */
async function findTakenNames(ask: Ask): Promise<string[]> {
  const { rows: ledger } = await ask(`select to_regclass('gift_budgets_objects') as found`);
  const notOurs = (kinds: string, name: string): string =>
    (ledger[0] as { found: unknown }).found === null
      ? 'true'
      : `not exists (select from gift_budgets_objects m where m.kind in (${kinds}) and m.name = ${name})`;
  const { rows } = await ask(
    `select c.relname as name, 'relation' as kind, null as definition
       from pg_class c
      where c.relnamespace = (select oid from pg_namespace where nspname = current_schema())
        and c.relname = any (${array(OUR_RELATIONS)}) and ${notOurs(`'table', 'view'`, 'c.relname')}
     union all
     select distinct p.proname, 'function', null
       from pg_proc p
      where p.pronamespace = (select oid from pg_namespace where nspname = current_schema())
        and p.proname = any (${array(OUR_FUNCTIONS)}) and ${notOurs(`'function'`, 'p.proname')}
     union all
     select t.tgname, 'trigger', null
       from pg_trigger t
       join pg_class c on c.oid = t.tgrelid
      where c.relnamespace = (select oid from pg_namespace where nspname = current_schema())
        and c.relname in ('gift_persons', 'person_occasions')
        and t.tgname = any (${array(OUR_TRIGGERS)}) and ${notOurs(`'trigger'`, 't.tgname')}
     union all
     select c.relname, 'index', t.relname || substring(pg_get_indexdef(c.oid) from ' USING .*')
       from pg_class c
       left join pg_index i on i.indexrelid = c.oid
       left join pg_class t on t.oid = i.indrelid
      where c.relnamespace = (select oid from pg_namespace where nspname = current_schema())
        and c.relname = any (${array(Object.keys(OUR_INDEXES))}) and ${notOurs(`'index'`, 'c.relname')}`,
  );
  return (rows as { name: string; kind: string; definition: string | null }[]).flatMap(
    ({ name, kind, definition }) => {
      const needed = OUR_INDEXES[name];
      if (needed === undefined) {
        return [`a ${kind} ${name} is there, and was not made by gift-budgets; needed: that name`];
      }
      if (definition === needed) return [];
      return [
        `the index name ${name} is taken${definition === null ? '' : ` by ${definition}`}; ` +
          `needed: ${needed}, or no such name`,
      ];
    },
  );
}

function array(names: readonly string[]): string {
  return `array[${names.map((name) => `'${name}'`).join()}]`;
}
