import { MIGRATIONS_TABLE, type Queryable } from '../../database.ts';
import { describeMisfit, readSchemaFit, type SchemaFit } from '../schema-watch.ts';
import { error, type Finding, ok } from './finding.ts';

/**
 * Whether the migrations that this version needs are applied, and no later ones.
 *
 * @param known the names of those that this version has.
 */
export async function checkSchema(
  db: Queryable,
  known: readonly string[],
): Promise<{ readonly findings: readonly Finding[]; readonly fit: SchemaFit }> {
  const fit = await readSchemaFit(db, known);
  const misfit = describeMisfit(fit);
  if (misfit === null) {
    return { findings: [ok(`all ${known.length} migrations are applied, and no others`)], fit };
  }
  const hidden = fit.state === 'older' ? await findHidden(db) : null;
  if (hidden !== null) return { findings: [hidden], fit };
  const why = 'Workers of this version wait until it fits. Nothing is lost meanwhile.';
  const remedy = misfit.isCommand
    ? { shell: [misfit.todo] }
    : { todo: `${sentence(misfit.todo)}.` };
  return { findings: [error(misfit.problem, { why, ...remedy })], fit };
}

/** The tables are there, but not where this role looks for them. */
async function findHidden(db: Queryable): Promise<Finding | null> {
  const { rows } = await db.query(
    `select quote_ident(n.nspname) as schema, quote_ident(current_user) as role,
            current_setting('search_path') as path
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relname = '${MIGRATIONS_TABLE}' and to_regclass('${MIGRATIONS_TABLE}') is null
      order by 1 limit 1`,
  );
  if (rows[0] === undefined) return null;
  const { schema, role, path } = rows[0] as Record<string, string>;
  return error(`the tables are in the schema ${schema}, where this role does not look`, {
    why: `Its search_path is ${path}, so it finds none of them.`,
    todo: 'For sessions from now on, if that schema is the one that is meant:',
    sql: [`alter role ${role} set search_path = ${schema}, public;`],
  });
}

function sentence(text: string): string {
  return text[0]!.toUpperCase() + text.slice(1);
}
