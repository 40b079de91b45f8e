import type { Queryable } from '../../database.ts';
import { PRIVILEGES } from './as-migrated.ts';
import { error, type Finding, orOk } from './finding.ts';

/** Whether the role that asks, which should be the worker's, may do what the work needs. */
export async function checkPrivileges(db: Queryable): Promise<readonly Finding[]> {
  const { rows } = await db.query(
    'select current_user as role, quote_ident(current_user) as quoted',
  );
  const { role, quoted } = rows[0] as { role: string; quoted: string };
  return orOk(
    [...(await findMissing(db, role, quoted)), ...(await findRowSecurity(db, role, quoted))],
    `the role ${role} may do all that a worker does`,
  );
}

async function findMissing(db: Queryable, role: string, quoted: string): Promise<Finding[]> {
  const wanted = Object.entries(PRIVILEGES).flatMap(([table, privileges]) =>
    privileges.map((privilege) => ({ table, privilege })),
  );
  const { rows } = await db.query(
    `select w.relation, string_agg(w.privilege, ', ' order by w.place) as privileges
       from unnest($1::text[], $2::text[]) with ordinality as w (relation, privilege, place)
      where not has_table_privilege(to_regclass(w.relation), w.privilege)
      group by w.relation
      order by min(w.place)`,
    [wanted.map(({ table }) => table), wanted.map(({ privilege }) => privilege)],
  );
  if (rows.length === 0) return [];
  const lacking = rows as { relation: string; privileges: string }[];
  const names = lacking.map(({ relation }) => relation).join(', ');
  return [
    error(`the role ${role} may not do all that a worker does, on ${names}`, {
      why: 'What a worker does under this role fails: permission denied.',
      todo: 'As the owner of the tables, or ask again under the role of the workers:',
      sql: lacking.map(
        ({ relation, privileges }) => `grant ${privileges} on ${relation} to ${quoted};`,
      ),
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
    [Object.keys(PRIVILEGES)],
  );
  return rows.map(({ relation }) =>
    error(`row security keeps rows of ${relation as string} from the role ${role}`, {
      why: 'It sums only what it sees: totals become wrong, and no sweep notices.',
      todo: 'Let the role of the worker see everything (a superuser may type this):',
      sql: [`alter role ${quoted} bypassrls;`],
    }),
  );
}
