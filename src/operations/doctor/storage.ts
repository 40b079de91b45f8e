import type { Queryable } from '../../database.ts';
import { seconds } from '../advice.ts';
import { count } from '../diagnosis.ts';
import { TABLE_OPTIONS } from './as-migrated.ts';
import { DO_NOT_WAIT, error, type Finding, ok, warning } from './finding.ts';

/** How the tables whose rows change all the time are kept, and whether vacuum keeps up with the marks. */
export async function checkStorage(
  db: Queryable,
  deadMarksMax: number,
): Promise<readonly Finding[]> {
  const tables = await readTables(db);
  const marks = tables.find(({ name }) => name === 'pending_recalculations')!;
  const problems = [
    ...tables.flatMap(findUnlogged),
    ...tables.flatMap(compareOptions),
    ...(await findVacuumOff(db, marks)),
    ...findDeadMarks(marks, deadMarksMax),
  ];
  return problems.some(({ severity }) => severity === 'error')
    ? problems
    : [...problems, ok(describeMarks(marks))];
}

interface StoredTable {
  readonly name: string;
  readonly isUnlogged: boolean;
  readonly options: readonly string[];
  /** As the statistics have it: they lag behind by a moment. */
  readonly dead: number;
  /** How long ago, by vacuum or autovacuum; null for never. */
  readonly vacuumedSecondsAgo: number | null;
}

async function readTables(db: Queryable): Promise<readonly StoredTable[]> {
  const { rows } = await db.query(
    `select c.relname as name, c.relpersistence = 'u' as "isUnlogged",
            coalesce(c.reloptions, '{}') as options,
            coalesce(s.n_dead_tup, 0)::float8 as dead,
            extract(epoch from clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum))::float8
              as "vacuumedSecondsAgo"
       from pg_class c
       left join pg_stat_all_tables s on s.relid = c.oid
      where c.oid in ('person_occasions'::regclass, 'gift_persons'::regclass,
                      'pending_recalculations'::regclass, 'recalculation_failures'::regclass)
      order by 1`,
  );
  return rows as unknown as StoredTable[];
}

function findUnlogged({ name, isUnlogged }: StoredTable): Finding[] {
  if (!isUnlogged) return [];
  return [
    error(`${name} is unlogged`, {
      why: 'A crash of PostgreSQL empties it.',
      todo: 'This writes the whole table anew, and holds up all who use it meanwhile:',
      sql: [DO_NOT_WAIT, `alter table ${name} set logged;`],
    }),
  ];
}

function compareOptions({ name, options }: StoredTable): Finding[] {
  const missing = (TABLE_OPTIONS[name] ?? []).filter((option) => !options.includes(option));
  if (missing.length === 0) return [];
  return [
    warning(`${name} is stored without ${missing.join(', ')}`, {
      why:
        name === 'pending_recalculations'
          ? 'It churns: vacuum must come early, and must not take the lock that cutting it needs.'
          : 'A new total finds no room beside the old one, and has to write every index of the row.',
      sql: [DO_NOT_WAIT, `alter table ${name} set (${missing.join(', ')});`],
    }),
  ];
}

async function findVacuumOff(db: Queryable, { name, options }: StoredTable): Promise<Finding[]> {
  const why = 'Dead marks pile up, and every look at the marks has to step over them.';
  const { rows } = await db.query(
    `select name from pg_settings
      where name in ('autovacuum', 'track_counts') and setting = 'off' order by 1`,
  );
  const ofServer = rows.map((row) =>
    error(`${row.name as string} is off: nothing is vacuumed by itself`, {
      why,
      todo: 'In the configuration of the server, or:',
      sql: [`alter system set ${row.name as string} = on;`, 'select pg_reload_conf();'],
    }),
  );
  if (!options.some((option) => /^autovacuum_enabled=(off|false|no|0)$/.test(option))) {
    return ofServer;
  }
  return [
    ...ofServer,
    error(`autovacuum is off for ${name}`, {
      why,
      sql: [DO_NOT_WAIT, `alter table ${name} reset (autovacuum_enabled);`, `vacuum ${name};`],
    }),
  ];
}

function findDeadMarks(marks: StoredTable, deadMarksMax: number): Finding[] {
  if (marks.dead <= deadMarksMax) return [];
  return [
    warning(`${describeMarks(marks)}: vacuum does not keep up`, {
      why:
        'Every look at the marks steps over the dead ones: slow looks, and totals that come late. ' +
        'Most often an old transaction keeps them (see snapshots and prepared, if told here).',
      todo: 'End that one first; then this says what is in the way, if anything still is:',
      sql: ['vacuum (verbose) pending_recalculations;'],
    }),
  ];
}

function describeMarks({ dead, vacuumedSecondsAgo }: StoredTable): string {
  const vacuumed =
    vacuumedSecondsAgo === null
      ? 'never vacuumed yet'
      : `vacuumed ${seconds(vacuumedSecondsAgo)} ago`;
  return `${count(dead, 'dead mark')}, ${vacuumed}`;
}
