import type pg from 'pg';
import type { Queryable } from '../../database.ts';
import type { Pair } from '../../events/contract.ts';
import { seconds } from '../advice.ts';
import { describeHolder } from '../diagnosis.ts';
import { findLongHolders, findRowHolders, type RowHolder } from '../row-holders.ts';
import { error, type Finding, orOk, warning } from './finding.ts';

const PAIRS_TRIED_MAX = 5;

/** Who holds budget rows: those that a recalculation waits for, and those held for long. */
export async function checkHolders(
  pool: pg.Pool,
  waitsSeconds: number,
  holdsSeconds: number,
): Promise<readonly Finding[]> {
  const waited: Finding[] = [];
  const told = new Set<string>();
  for (const pair of await readWaiting(pool, waitsSeconds)) {
    const { holders } = await findRowHolders(pool, pair);
    for (const holder of holders) {
      told.add(idOf(holder));
      waited.push(tellWaited(pair, holder));
    }
  }
  const long = await findLongHolders(pool, holdsSeconds);
  return orOk(
    [...waited, ...long.filter((holder) => !told.has(idOf(holder))).map(tellLong)],
    'no session holds budgets for long',
  );
}

/** The pairs that have waited for longest, a few of them. */
async function readWaiting(db: Queryable, waitsSeconds: number): Promise<Pair[]> {
  const { rows } = await db.query(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from (select id, person_id, occasion_id from pending_recalculations
              where not everything and marked_at < clock_timestamp() - make_interval(secs => $1)
              order by id limit 1000) as m
      group by person_id, occasion_id
      order by min(id)
      limit $2::int`,
    [waitsSeconds, PAIRS_TRIED_MAX],
  );
  return rows as unknown as Pair[];
}

function tellWaited({ personId, occasionId }: Pair, holder: RowHolder): Finding {
  const { who, howToEnd } = describeHolder(holder);
  return error(`the budget of person ${personId}, occasion ${occasionId} is held by ${who}`, {
    why: 'Its total cannot be stored until that ends. All others go on.',
    todo: `${ASK_FIRST} Otherwise:`,
    sql: [`${howToEnd};`],
  });
}

const ASK_FIRST = 'Ask whoever it belongs to to commit or roll back.';

function tellLong(holder: RowHolder): Finding {
  const { who, howToEnd } = describeHolder(holder);
  return warning(`budgets are held by ${who}`, {
    why: 'A change of those that it has written cannot be stored until it ends.',
    todo: `${ASK_FIRST} Otherwise:`,
    sql: [`${howToEnd};`],
  });
}

function idOf(holder: RowHolder): string {
  return holder.kind === 'prepared' ? `gid ${holder.gid}` : `pid ${holder.pid}`;
}

/** Prepared transactions that nobody ends: they stay over a restart, and keep what they locked. */
export async function checkPrepared(
  db: Queryable,
  longSeconds: number,
): Promise<readonly Finding[]> {
  const { rows } = await db.query(
    `select quote_literal(gid) as gid, owner,
            extract(epoch from clock_timestamp() - prepared)::float8 as age
       from pg_prepared_xacts
      where database = current_database()
        and prepared <= clock_timestamp() - make_interval(secs => $1)
      order by prepared`,
    [longSeconds],
  );
  const problems = rows.map((row) => {
    const { gid, owner, age } = row as { gid: string; owner: string; age: number };
    return warning(`the prepared transaction ${gid} of ${owner} is ${seconds(age)} old`, {
      why: 'It keeps its locks and the dead rows of every table, over restarts too, until it is ended.',
      todo: 'Ask its transaction manager whether it is to be committed; one of:',
      sql: [`commit prepared ${gid};`, `rollback prepared ${gid};`],
    });
  });
  return orOk(problems, 'no transaction is left prepared');
}

/** Snapshots so old that vacuum has to leave many dead rows, marks above all. */
export async function checkSnapshots(
  db: Queryable,
  longSeconds: number,
): Promise<readonly Finding[]> {
  const { rows } = await db.query(
    `select pid, coalesce(nullif(application_name, ''), 'no application name') as name, state,
            extract(epoch from clock_timestamp() - xact_start)::float8 as age
       from pg_stat_activity
      where datname = current_database() and backend_type = 'client backend'
        and (backend_xmin is not null or backend_xid is not null)
        and pid <> pg_backend_pid()
        and xact_start <= clock_timestamp() - make_interval(secs => $1)
      order by xact_start`,
    [longSeconds],
  );
  const problems = rows.map((row) => {
    const { pid, name, state, age } = row as {
      pid: number;
      name: string;
      state: string;
      age: number;
    };
    return warning(`pid ${pid} (${name}, ${state}) is in a transaction for ${seconds(age)}`, {
      why: 'Vacuum leaves all dead rows since then: looks at the marks become slow.',
      todo: 'A backup may be worth that. Otherwise:',
      sql: [`select pg_terminate_backend(${pid});`],
    });
  });
  return orOk(problems, 'no transaction is old');
}
