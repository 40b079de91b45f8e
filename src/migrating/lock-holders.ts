/** The tables that somebody may hold a lock on for long. */
const TABLES = ['persons', 'occasions', 'person_occasions', 'gifts', 'gift_persons'];

const HOLDERS_TOLD_MAX = 3;

/** Others had tables locked for so long that a migration was given up. What was applied stays. */
export class MigrationLockError extends Error {
  readonly code = 'MIGRATION_LOCK_TIMEOUT';
  override readonly name = 'MigrationLockError';

  constructor(patienceMs: number, holders: string, cause: Error) {
    super(
      `gave up after ${Math.round(patienceMs / 1000)} s, in which a table could not be locked: ${holders}. ` +
        'Let that end, and run it again: what is applied stays applied.',
      { cause },
    );
  }
}

/** Says who holds locks on the tables that migrations change, the longest transactions first. */
export async function describeHolders(query: (sql: string) => Promise<object[]>): Promise<string> {
  const holders = (await query(
    `select a.pid, a.application_name as application, a.state,
            extract(epoch from clock_timestamp() - a.xact_start)::int as seconds,
            left(a.query, 100) as query, string_agg(distinct c.relname, ', ') as tables
       from pg_locks l
       join pg_class c on c.oid = l.relation
       join pg_stat_activity a on a.pid = l.pid
      where l.granted and a.pid <> pg_backend_pid() and a.datname = current_database()
        and c.relname in (${TABLES.map((name) => `'${name}'`).join()})
      group by a.pid, a.application_name, a.state, a.xact_start, a.query
      order by a.xact_start
      limit ${HOLDERS_TOLD_MAX}`,
  )) as Holder[];
  return holders.length === 0 ? 'nobody holds one just now' : holders.map(describe).join('; ');
}

interface Holder {
  readonly pid: number;
  readonly application: string;
  readonly state: string | null;
  readonly seconds: number | null;
  readonly query: string;
  readonly tables: string;
}

function describe({ pid, application, state, seconds, query, tables }: Holder): string {
  const name = application === '' ? '' : ` (${application})`;
  const since = seconds === null ? '' : ` for ${seconds} s`;
  return `pid ${pid}${name} holds ${tables}, ${state ?? 'in a state that cannot be seen'}${since}: ${query}`;
}
