import type pg from 'pg';
import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';

/** Who holds a budget row so that nothing can be stored in it. */
export type RowHolder =
  | {
      readonly kind: 'session';
      readonly pid: number;
      readonly applicationName: string;
      /** 'active', 'idle in transaction' …; null where our role may not see it. */
      readonly state: string | null;
      readonly transactionSeconds: number | null;
      /** The first 200 characters of what it runs, or ran last. */
      readonly query: string | null;
    }
  | {
      /** Prepared for two-phase commit: no session, it stays over a restart. */
      readonly kind: 'prepared';
      readonly gid: string;
      readonly transactionSeconds: number;
    };

export interface RowHold {
  /** `unknown`: it could not be tried, see `why`. */
  readonly state: 'free' | 'held' | 'unknown';
  readonly holders: readonly RowHolder[];
  readonly why: string | null;
}

/** Held, but by nobody whom we find: he may have ended in between, so it is tried again. */
const TRIES_MAX = 3;

/**
 * Whether a recalculation could lock the row now, and if not, because of whom.
 *
 * It is tried with the very lock that a recalculation takes, without waiting, and given back at
 * once: so those who only have KEY SHARE on the row (the foreign key of an assignment that is not
 * committed yet) are not named, because they hold up nobody.
 */
export async function findRowHolders(pool: pg.Pool, pair: Pair): Promise<RowHold> {
  for (let tries = 1; ; tries += 1) {
    const refusal = await tryToLock(pool, pair);
    if (refusal !== 'held') {
      return { state: refusal === null ? 'free' : 'unknown', holders: [], why: refusal };
    }
    const holders = await findHolders(pool, pair);
    if (holders.length > 0 || tries === TRIES_MAX) return { state: 'held', holders, why: null };
  }
}

/** Why a lock was not even tried for: no privilege, a read-only server, a locked table. */
const CANNOT_TRY = new Set(['42501', '25006', '55P03']);

/** @returns null where the row is free, 'held', or why it could not be tried. */
async function tryToLock(pool: pg.Pool, pair: Pair): Promise<string | null> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query(`begin isolation level read committed; set local lock_timeout = '1s'`);
    const { rows } = await client.query(
      `select from person_occasions
        where person_id = $1::bigint and occasion_id = $2::bigint
          for no key update skip locked`,
      [pair.personId, pair.occasionId],
    );
    return rows.length > 0 ? null : 'held';
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    if (code !== undefined && CANNOT_TRY.has(code)) return message;
    throw error;
  } finally {
    await client.query('rollback').catch((error: Error) => (broken = error));
    client.release(broken);
  }
}

/**
 * The row's xmax is the transaction that holds it, or stands for several (a multixact). Which of
 * both it is the row does not tell, so both are looked up, and only transactions that are under way
 * and have locked rows of this table count: a multixact of the same number does not pass for one.
 *
 * A savepoint that was released leaves its own number in the row, which leads to nobody any more;
 * then PostgreSQL itself is asked whom it would wait for.
 */
async function findHolders(pool: pg.Pool, pair: Pair): Promise<RowHolder[]> {
  const { rows } = await pool.query<{ xmax: string }>(
    `select xmax::text from person_occasions
      where person_id = $1::bigint and occasion_id = $2::bigint`,
    [pair.personId, pair.occasionId],
  );
  if (rows[0] === undefined) return [];
  const { xmax } = rows[0];
  const holders = await holdersOf(pool, [xmax, ...(await blockingMembers(pool, xmax))]);
  return holders.length > 0 ? holders : await holdersOf(pool, await waitedFor(pool, pair));
}

/** Those of a multixact that have more than KEY SHARE; none where it is no multixact. */
async function blockingMembers(db: Queryable, xmax: string): Promise<string[]> {
  try {
    const { rows } = await db.query(
      `select xid::text from pg_get_multixact_members($1::text::xid) where mode <> 'keysh'`,
      [xmax],
    );
    return rows.map((row) => row.xid as string);
  } catch (error) {
    // "MultiXactId … has not been created yet", and the like.
    if ((error as { code?: string }).code === undefined) throw error;
    return [];
  }
}

/** How long a lock is waited for, so that it can be seen for whom. It holds up no one else. */
const WAIT_MS = 200;

/** The transactions that a lock on the row waits for, itself or behind another who waits. */
async function waitedFor(pool: pg.Pool, { personId, occasionId }: Pair): Promise<string[]> {
  const waiter = await pool.connect();
  let broken: Error | undefined;
  try {
    await waiter.query(`begin; set local lock_timeout = ${WAIT_MS}`);
    // Inside the transaction: behind a pooler the next one may be on another connection.
    const { rows } = await waiter.query<{ pid: number }>('select pg_backend_pid() as pid');
    let isWaiting = true;
    const waiting = waiter
      .query(
        `select from person_occasions
          where person_id = $1::bigint and occasion_id = $2::bigint for no key update`,
        [personId, occasionId],
      )
      .catch(() => {})
      .finally(() => (isWaiting = false));
    let transactions: string[] = [];
    while (isWaiting && transactions.length === 0) {
      transactions = await awaitedBy(pool, rows[0]!.pid);
    }
    await waiting;
    return transactions;
  } finally {
    await waiter.query('rollback').catch((error: Error) => (broken = error));
    waiter.release(broken);
  }
}

async function awaitedBy(db: Queryable, pid: number): Promise<string[]> {
  const { rows } = await db.query(
    `select transactionid::text as id
       from pg_locks
      where locktype = 'transactionid' and not granted
        and pid = any (pg_blocking_pids($1::int) || $1::int)`,
    [pid],
  );
  return rows.map((row) => row.id as string);
}

/**
 * A transaction holds an exclusive lock on its own number, and a savepoint on one of its own. Of a
 * prepared one the pid is null, and what it locks has its virtual transaction in common.
 */
async function holdersOf(db: Queryable, transactions: readonly string[]): Promise<RowHolder[]> {
  const { rows } = await db.query(
    `with holding as (
       select distinct l.pid, l.virtualtransaction
         from pg_locks l
        where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted
          and l.transactionid::text = any ($1::text[])
          and exists (
            select from pg_locks r
             where r.locktype = 'relation' and r.granted
               and r.database = (select oid from pg_database where datname = current_database())
               and r.relation = 'person_occasions'::regclass
               and r.mode <> 'AccessShareLock'
               and r.virtualtransaction = l.virtualtransaction
               and r.pid is not distinct from l.pid
          )
     )
     select h.pid, x.gid,
            coalesce(a.application_name, '') as "applicationName", a.state,
            extract(epoch from clock_timestamp() - coalesce(x.prepared, a.xact_start))::float8
              as "transactionSeconds",
            left(nullif(a.query, '<insufficient privilege>'), 200) as query
       from holding h
       left join pg_stat_activity a on a.pid = h.pid
       left join pg_locks own
         on h.pid is null and own.pid is null and own.locktype = 'transactionid'
        and own.virtualtransaction = h.virtualtransaction
       left join pg_prepared_xacts x on x.transaction = own.transactionid
      where h.pid is not null or x.gid is not null
      order by h.pid, x.gid`,
    [transactions],
  );
  return rows.map(toHolder);
}

/**
 * The transactions that have changed budgets, or locked their table, and have not ended for so long.
 * Who has only locked rows for a key (an assignment that is not committed) is not among them.
 */
export async function findLongHolders(db: Queryable, seconds: number): Promise<RowHolder[]> {
  const { rows } = await db.query(
    `select distinct r.pid, x.gid,
            coalesce(a.application_name, '') as "applicationName", a.state,
            extract(epoch from clock_timestamp() - coalesce(x.prepared, a.xact_start))::float8
              as "transactionSeconds",
            left(a.query, 200) as query
       from pg_locks r
       left join pg_stat_activity a on a.pid = r.pid
       left join pg_locks own
         on r.pid is null and own.pid is null and own.locktype = 'transactionid'
        and own.virtualtransaction = r.virtualtransaction
       left join pg_prepared_xacts x on x.transaction = own.transactionid
      where r.locktype = 'relation' and r.granted
        and r.database = (select oid from pg_database where datname = current_database())
        and r.relation = 'person_occasions'::regclass
        and r.mode in ('RowExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                       'AccessExclusiveLock')
        and coalesce(x.prepared, a.xact_start) <= clock_timestamp() - make_interval(secs => $1)
      order by r.pid, x.gid`,
    [seconds],
  );
  return rows.map(toHolder);
}

function toHolder(row: Record<string, unknown>): RowHolder {
  const { pid, gid, transactionSeconds, ...session } = row;
  return gid === null
    ? ({ kind: 'session', pid, transactionSeconds, ...session } as RowHolder)
    : ({ kind: 'prepared', gid, transactionSeconds } as RowHolder);
}
