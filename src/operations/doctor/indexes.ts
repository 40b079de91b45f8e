import type { Queryable } from '../../database.ts';
import { INDEXES } from './as-migrated.ts';
import { DO_NOT_WAIT, error, type Finding, orOk, warning } from './finding.ts';

const SLOW = 'Without it the cost of a recalculation or of a look grows with the table.';

/** Our indexes: there, valid, and as this version makes them. */
export async function checkIndexes(db: Queryable): Promise<readonly Finding[]> {
  const found = await readIndexes(db);
  const missing = INDEXES.flatMap((definition) => compareIndex(definition, found));
  return orOk(
    [...findInvalid(found), ...missing, ...(await findIndexedTotals(db))],
    `all ${INDEXES.length} that the work relies on are valid`,
  );
}

interface FoundIndex {
  readonly name: string;
  readonly definition: string;
  readonly isValid: boolean;
  readonly isBeingBuilt: boolean;
}

async function readIndexes(db: Queryable): Promise<readonly FoundIndex[]> {
  const { rows } = await db.query(
    `select i.indexrelid::regclass::text as name,
            pg_get_indexdef(i.indexrelid, 0, true) as definition,
            i.indisvalid and i.indisready as "isValid",
            exists (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid)
              as "isBeingBuilt"
       from pg_index i
      where i.indrelid in ('person_occasions'::regclass, 'gift_persons'::regclass,
                           'pending_recalculations'::regclass, 'recalculation_failures'::regclass,
                           'budget_sweeps'::regclass, 'budget_sweep_findings'::regclass)
      order by 1`,
  );
  return rows as unknown as FoundIndex[];
}

function findInvalid(found: readonly FoundIndex[]): Finding[] {
  return found
    .filter(({ isValid }) => !isValid)
    .map(({ name, isBeingBuilt }) =>
      isBeingBuilt
        ? warning(`${name} is being built just now`, {
            why: 'It is not used until then, and each write of its table waits for it already.',
            todo: 'Wait for it, and ask again.',
          })
        : error(`${name} is invalid: its build was broken off`, {
            why: 'It is not used, and each write of its table pays for it all the same.',
            // Of one that REINDEX left half done there is a whole one beside it.
            ...(/_cc(new|old)\d*$/.test(name)
              ? { sql: [`drop index concurrently ${name};`] }
              : { sql: [`reindex index concurrently ${name};`] }),
          }),
    );
}

function compareIndex(definition: string, found: readonly FoundIndex[]): Finding[] {
  // One that does the same under another name will do.
  const shapeOf = (text: string): string => text.replace(/ INDEX \S+ ON /, ' INDEX ON ');
  if (found.some((index) => shapeOf(index.definition) === shapeOf(definition))) return [];
  const name = / INDEX (\S+) ON /.exec(definition)![1]!;
  const other = found.find((index) => index.name === name);
  const create = `${definition.replace(' INDEX ', ' INDEX CONCURRENTLY ')};`;
  if (other === undefined) return [error(`${name} is missing`, { why: SLOW, sql: [create] })];
  return [
    error(`${name} is not as this version makes it: ${other.definition}`, {
      why: SLOW,
      sql: [`drop index concurrently ${name};`, create],
    }),
  ];
}

/** A new total is written beside the old one, and no index touched, only while none holds it. */
async function findIndexedTotals(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select distinct d.objid::regclass::text as name
       from pg_depend d
       join pg_index i on i.indexrelid = d.objid
       join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
        and d.refobjid = 'person_occasions'::regclass and a.attname = 'budget_spent'
      order by 1`,
  );
  return rows.map(({ name }) =>
    warning(`${name as string} holds budget_spent`, {
      why: 'Each new total has to write it, and every other index of the row with it.',
      todo: 'Is it worth that? Otherwise:',
      sql: [DO_NOT_WAIT, `drop index concurrently ${name as string};`],
    }),
  );
}
