import type { Queryable } from '../../database.ts';
import { MARK_FUNCTIONS, MARK_TRIGGERS, type MarkTrigger } from './as-migrated.ts';
import { DO_NOT_WAIT, error, type Finding, MARK_EVERYTHING, orOk } from './finding.ts';

/** Without a mark a change is only found by the next sweep. */
const UNMARKED =
  'What it should mark goes unmarked: the totals go wrong, and only a sweep finds it.';

/** The triggers that write the marks: there, enabled, and as this version makes them. */
export async function checkTriggers(db: Queryable): Promise<readonly Finding[]> {
  const [triggers, functions] = [await readTriggers(db), await checkFunctions(db)];
  const problems = MARK_TRIGGERS.flatMap((expected) =>
    compareTrigger(expected, triggers.get(expected.name)),
  );
  return orOk(
    [...functions, ...problems, ...findSilent(triggers)],
    `all ${MARK_TRIGGERS.length} that write the marks are enabled, and as this version makes them`,
  );
}

interface FoundTrigger {
  readonly definition: string;
  readonly enabled: string;
}

async function readTriggers(db: Queryable): Promise<Map<string, FoundTrigger>> {
  const { rows } = await db.query(
    `select t.tgname as name, pg_get_triggerdef(t.oid, true) as definition, t.tgenabled as enabled
       from pg_trigger t
      where t.tgrelid in ('gift_persons'::regclass, 'person_occasions'::regclass)
        and not t.tgisinternal`,
  );
  return new Map(rows.map(({ name, ...found }) => [name as string, found as never]));
}

function compareTrigger(expected: MarkTrigger, found: FoundTrigger | undefined): Finding[] {
  const { name, table, definition } = expected;
  if (found === undefined) {
    return [
      error(`${name} on ${table} is missing`, {
        why: UNMARKED,
        todo: 'Make it, and have every total recalculated:',
        sql: [DO_NOT_WAIT, `${definition};`, MARK_EVERYTHING],
      }),
    ];
  }
  if (found.definition !== definition) {
    const sql = [`drop trigger ${name} on ${table};`, `${definition};`, MARK_EVERYTHING];
    return [
      error(`${name} on ${table} is not as this version makes it: ${found.definition}`, {
        why: 'It may leave changes unmarked: their totals go wrong, and only a sweep finds it.',
        todo: 'Make it anew, and have every total recalculated:',
        sql: [DO_NOT_WAIT, 'begin;', ...sql, 'commit;'],
      }),
    ];
  }
  return [];
}

/** Mostly all of a table are disabled at once, so they are told together. */
function findSilent(found: ReadonlyMap<string, FoundTrigger>): Finding[] {
  return ['gift_persons', 'person_occasions'].flatMap((table) =>
    Object.entries(WHY_SILENT).flatMap(([enabled, why]) => {
      const silent = MARK_TRIGGERS.filter(
        (trigger) => trigger.table === table && found.get(trigger.name)?.enabled === enabled,
      ).map(({ name }) => name);
      if (silent.length === 0) return [];
      const are = silent.length === 1 ? 'is' : 'are';
      return [
        error(`${silent.join(', ')} on ${table} ${are} ${why}`, {
          why: 'What should be marked goes unmarked: totals go wrong, and only a sweep finds it.',
          todo: 'Enable what is disabled, and have every total recalculated:',
          sql: [
            DO_NOT_WAIT,
            ...silent.map((name) => `alter table ${table} enable trigger ${name};`),
            MARK_EVERYTHING,
          ],
        }),
      ];
    }),
  );
}

/** By tgenabled; the others fire. */
const WHY_SILENT: Readonly<Record<string, string>> = {
  D: 'disabled',
  R: 'enabled for replication alone',
};

async function checkFunctions(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select p.oid::regproc::text as name, p.prosrc as body, p.prosecdef as "isDefiner",
            p.proconfig as settings, s.schema,
            quote_ident(pg_get_userbyid(p.proowner)) as owner,
            has_table_privilege(p.proowner, 'pending_recalculations', 'insert') as "mayMark"
       from (select distinct tgfoid from pg_trigger
              where tgname = any ($1::text[])
                and tgrelid in ('gift_persons'::regclass, 'person_occasions'::regclass)) as t
       join pg_proc p on p.oid = t.tgfoid
      cross join (select quote_ident(n.nspname) as schema
                    from pg_class c join pg_namespace n on n.oid = c.relnamespace
                   where c.oid = 'pending_recalculations'::regclass) as s
      order by 1`,
    [MARK_TRIGGERS.map(({ name }) => name)],
  );
  return (rows as unknown as FoundFunction[]).flatMap(compareFunction);
}

interface FoundFunction {
  readonly name: string;
  readonly body: string;
  readonly isDefiner: boolean;
  readonly settings: readonly string[] | null;
  /** That of the marks, quoted. */
  readonly schema: string;
  readonly owner: string;
  readonly mayMark: boolean;
}

function compareFunction(found: FoundFunction): Finding[] {
  const { name, schema, owner, mayMark } = found;
  // One that is not known here is told as a trigger that differs.
  const body = MARK_FUNCTIONS[name]?.replaceAll('SCHEMA', schema);
  if (body === undefined) return [];
  const path = `pg_catalog, ${schema}, pg_temp`;
  const isSame =
    squeeze(found.body) === squeeze(body) &&
    found.isDefiner &&
    found.settings?.length === 1 &&
    squeeze(found.settings[0]!) === `search_path=${path}`;
  const problems: Finding[] = [];
  if (!isSame) {
    const header =
      `create or replace function ${name}() returns trigger language plpgsql ` +
      `security definer set search_path = ${path} as $$`;
    problems.push(
      error(`the function ${name}() is not as this version makes it`, {
        why: 'It may leave changes unmarked, or make the writes of others fail.',
        todo: 'Make it anew, and have every total recalculated:',
        sql: [header, ...body.split('\n'), '$$;', MARK_EVERYTHING],
      }),
    );
  }
  if (!mayMark) {
    problems.push(
      error(`the owner of the function ${name}(), ${owner}, may not write marks`, {
        why: 'Every change of an assignment fails: permission denied.',
        sql: [`grant insert on pending_recalculations to ${owner};`],
      }),
    );
  }
  return problems;
}

function squeeze(text: string): string {
  return text.trim().replace(/\s+/g, ' ');
}
