import { assertSchemaCompatibility, SchemaMigrationRequiredError } from 'bullmq';
import type pg from 'pg';
import type { Queryable } from '../../database.ts';
import { describeError } from '../../describe-error.ts';
import { error, type Finding, ok } from './finding.ts';

const UNSERVED = 'No gift event can be sent or served. Totals still become right, by their marks.';

/** A queue in PostgreSQL: its tables are there, as BullMQ needs them, and may be used. */
export async function checkQueueTables(
  db: pg.Pool,
  schema = 'bullmq',
): Promise<readonly Finding[]> {
  const refused = await findRefused(db, schema);
  if (refused !== null) {
    const { what, role } = refused;
    return [
      error(`this role may not use ${what}, where the queue is`, {
        why: UNSERVED,
        sql: [
          `grant usage on schema ${schema} to ${role};`,
          `grant select, insert, update, delete on all tables in schema ${schema} to ${role};`,
          `revoke insert, update, delete on ${schema}.migration from ${role};`,
          `grant usage, select, update on all sequences in schema ${schema} to ${role};`,
        ],
      }),
    ];
  }
  try {
    await assertSchemaCompatibility(db, schema);
  } catch (cause) {
    const isMissing = cause instanceof SchemaMigrationRequiredError;
    return [
      error(isMissing ? 'the tables of the queue are missing' : describeError(cause), {
        why: isMissing ? 'A worker does not start without them.' : UNSERVED,
        todo: isMissing ? 'Make them, or set REDIS_URL where the queue is to be in Redis:' : null,
        shell: ['gift-budgets migrate'],
      }),
    ];
  }
  return [ok('the queue is in PostgreSQL, and its tables are there')];
}

/** The first of schema, tables and sequences that the role may not use; null where there is none. */
async function findRefused(
  db: Queryable,
  schema: string,
): Promise<{ what: string; role: string } | null> {
  const { rows } = await db.query(
    `select quote_ident(current_user) as role, what
       from (select 1 as place, 'the schema ' || n.nspname as what
               from pg_namespace n
              where n.nspname = $1 and not has_schema_privilege(n.oid, 'usage')
              union all
             select 2, c.oid::regclass::text
               from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where n.nspname = $1
                and case c.relkind
                      when 'S' then not has_sequence_privilege(c.oid, 'usage')
                      when 'r' then exists (
                        select from unnest(array['select', 'insert', 'update', 'delete']) as p
                         where not has_table_privilege(c.oid, p)
                           and (p = 'select' or c.relname <> 'migration'))
                      else false end) as refused
      order by place, what
      limit 1`,
    [schema],
  );
  return (rows[0] as { what: string; role: string } | undefined) ?? null;
}
