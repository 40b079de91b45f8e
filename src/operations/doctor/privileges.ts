import type { Queryable } from '../../database.ts';
import { workerGrants, workerRights } from '../../grants.ts';
import { error, type Finding, orOk } from './finding.ts';

/** Whether the role that asks, which should be the worker's, may do what the work needs. */
export async function checkPrivileges(db: Queryable): Promise<readonly Finding[]> {
  const { rows } = await db.query(
    'select current_user as role, quote_ident(current_user) as quoted, current_schema() as schema',
  );
  const { role, quoted, schema } = rows[0] as Record<'role' | 'quoted' | 'schema', string>;
  return orOk(
    [...(await findMissing(db, role, schema)), ...(await findRowSecurity(db, role, quoted))],
    `the role ${role} may do all that a worker does`,
  );
}

async function findMissing(db: Queryable, role: string, schema: string): Promise<Finding[]> {
  const wanted = workerRights().flatMap(({ table, privilege, columns }) =>
    (columns.length > 0 ? columns : [null]).map((column) => ({ table, privilege, column })),
  );
  const { rows } = await db.query(
    `select w.relation
       from unnest($1::text[], $2::text[], $3::text[]) with ordinality
            as w (relation, privilege, of_column, place)
      where not case when w.of_column is null
                     then has_table_privilege(to_regclass(w.relation), w.privilege)
                     else has_column_privilege(to_regclass(w.relation), w.of_column, w.privilege) end
      group by w.relation
      order by min(w.place)`,
    [
      wanted.map(({ table }) => table),
      wanted.map(({ privilege }) => privilege),
      wanted.map(({ column }) => column),
    ],
  );
  if (rows.length === 0) return [];
  const tables = rows.map(({ relation }) => relation as string);
  return [
    error(`the role ${role} may not do all that a worker does, on ${tables.join(', ')}`, {
      why: 'What a worker does under this role fails: permission denied.',
      todo: 'As the owner of the tables, or ask again under the role of the workers:',
      sql: workerGrants(role, schema, tables),
    }),
  ];
}

/** A policy hides rows without a word: sums would be wrong, and marks would not be found. */
async function findRowSecurity(db: Queryable, role: string, quoted: string): Promise<Finding[]> {
  const { rows } = await db.query(
    `select w.relation
       from unnest($1::text[]) with ordinality as w (relation, place)
       join pg_class c on c.oid = to_regclass(w.relation) and c.relrowsecurity
      where row_security_active(c.oid)
      order by w.place`,
    [[...new Set(workerRights().map(({ table }) => table))]],
  );
  return rows.map(({ relation }) =>
    error(`row security keeps rows of ${relation as string} from the role ${role}`, {
      why: 'It sums only what it sees: totals become wrong, and no sweep notices.',
      todo: 'Let the role of the worker see everything (a superuser may type this):',
      sql: [`alter role ${quoted} bypassrls;`],
    }),
  );
}
