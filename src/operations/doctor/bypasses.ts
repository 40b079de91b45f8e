import type { Queryable } from '../../database.ts';
import { MARK_TRIGGERS } from './as-migrated.ts';
import { DO_NOT_WAIT, error, type Finding, orOk, warning } from './finding.ts';

/** Ways in which a change can get round the triggers that mark it. */
export async function checkBypasses(db: Queryable): Promise<readonly Finding[]> {
  return orOk(
    [
      ...(await findSilencedSessions(db)),
      ...(await findChildren(db)),
      ...(await findParents(db)),
      ...(await findUnmarkedSources(db)),
    ],
    'nothing was found that writes round the triggers',
  );
}

/** A default of a role, of a database or of the server that keeps triggers from firing. */
async function findSilencedSessions(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select quote_ident(r.rolname) as role, quote_ident(d.datname) as database
       from pg_db_role_setting s
       left join pg_roles r on r.oid = s.setrole
       left join pg_database d on d.oid = s.setdatabase
      where 'session_replication_role=replica' = any (s.setconfig)
        and (s.setdatabase = 0 or d.datname = current_database())
      union all
     select null, null from pg_settings
      where name = 'session_replication_role' and reset_val = 'replica'
        and source in ('configuration file', 'command line')`,
  );
  return rows.map((row) => {
    const { role, database } = row as Record<string, string | null>;
    const setFor = [
      ...(role === null ? [] : [`role ${role}`]),
      ...(database === null ? [] : [`database ${database}`]),
    ].join(' in ');
    return error(`session_replication_role is replica for ${setFor || 'the whole server'}`, {
      why: 'No trigger fires for such sessions: what they change leaves no mark.',
      todo: 'Only a restore or a replica needs that, and sets it itself. For sessions from now on:',
      sql: [`alter ${setFor || 'system'} reset session_replication_role;`],
    });
  });
}

/** Statement triggers fire for the table that a statement names, not for the parts of it. */
async function findChildren(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select i.inhrelid::regclass::text as child, i.inhparent::regclass::text as parent,
            array(select t.tgname::text from pg_trigger t
                   where t.tgrelid = i.inhrelid and t.tgenabled <> 'D') as triggers
       from pg_inherits i
      where i.inhparent in ('gift_persons'::regclass, 'person_occasions'::regclass)
      order by 1`,
  );
  return rows.flatMap((row) => {
    const { child, parent, triggers } = row as {
      child: string;
      parent: string;
      triggers: string[];
    };
    const missing = MARK_TRIGGERS.filter(
      ({ table, name }) => table === parent && !triggers.includes(name),
    );
    if (missing.length === 0) return [];
    return [
      warning(`${child} is a part of ${parent}, without the triggers that mark`, {
        why: `What is written to ${parent} is marked; what is written to ${child} itself is not.`,
        todo: 'Write to the table alone, or let the part mark too:',
        sql: [
          DO_NOT_WAIT,
          ...missing.map(
            ({ definition }) => `${definition.replace(` ON ${parent} `, ` ON ${child} `)};`,
          ),
        ],
      }),
    ];
  });
}

async function findParents(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select i.inhrelid::regclass::text as child, i.inhparent::regclass::text as parent,
            c.relispartition as "isPartition"
       from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhrelid in ('gift_persons'::regclass, 'person_occasions'::regclass)
      order by 1`,
  );
  return rows.map((row) => {
    const { child, parent, isPartition } = row as Record<string, string>;
    const sql = isPartition
      ? `alter table ${parent} detach partition ${child};`
      : `alter table ${child} no inherit ${parent};`;
    return error(`${child} is itself a part of ${parent}`, {
      why: `What is written to ${parent} does not fire the triggers of ${child}: it leaves no mark.`,
      todo: 'Part them, and write to each by its own name:',
      sql: [DO_NOT_WAIT, sql],
    });
  });
}

/**
 * A replaced view budget_contributions may read other tables, whose changes have to be marked too. A
 * trigger there counts as one that marks if its function speaks of the marks at all.
 */
async function findUnmarkedSources(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select distinct d.refobjid::regclass::text as name
       from pg_rewrite r
       join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
        and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
       join pg_class c on c.oid = d.refobjid and c.relkind in ('r', 'p', 'f', 'm')
      where r.ev_class = 'budget_contributions'::regclass
        and d.refobjid not in ('gift_persons'::regclass, 'person_occasions'::regclass)
        and not exists (
          select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
           where t.tgrelid = d.refobjid and t.tgenabled in ('O', 'A')
             and p.prosrc like '%pending_recalculations%')
      order by 1`,
  );
  return rows.map(({ name }) =>
    warning(`budget_contributions reads ${name as string}, which has no trigger that marks`, {
      why: `A change of ${name as string} that changes what counts leaves no mark.`,
      todo:
        'Give it one, if that can happen: docs/schema.md, "The view budget_contributions", has an ' +
        'example. Until then the sweeps find it.',
    }),
  );
}
