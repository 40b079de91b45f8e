import type { Queryable } from '../../database.ts';
import { error, type Finding, ok, orOk, warning } from './finding.ts';

/** The oldest that the tests are run on. */
const POSTGRES_MIN = 15;

/** Which server this is, and whether anything can be stored in it. */
export async function checkServer(db: Queryable): Promise<readonly Finding[]> {
  const { rows } = await db.query(
    `select current_setting('server_version') as version,
            current_setting('server_version_num')::int / 10000 as major,
            current_database() as database, current_user as role,
            pg_is_in_recovery() as "isStandby"`,
  );
  const { version, major, database, role, isStandby } = rows[0] as unknown as ServerFacts;
  return [
    ok(`PostgreSQL ${version}, database ${database}, as the role ${role}`),
    ...judgePostgresVersion(version, major),
    ...(isStandby ? [STANDBY] : []),
  ];
}

interface ServerFacts {
  readonly version: string;
  readonly major: number;
  readonly database: string;
  readonly role: string;
  readonly isStandby: boolean;
}

const STANDBY = error('this server is a standby', {
  why: 'Nothing can be stored in it.',
  todo: 'Let DATABASE_URL name the primary; target_session_attrs=read-write finds it among several.',
});

export function judgePostgresVersion(version: string, major: number): Finding[] {
  if (major >= POSTGRES_MIN) return [];
  return [
    warning(`PostgreSQL ${version} is older than what gift-budgets is tried on`, {
      why: `It is tried on PostgreSQL ${POSTGRES_MIN} to 18.`,
      todo: `Upgrade PostgreSQL to ${POSTGRES_MIN} or later.`,
    }),
  ];
}

const CLOCK_TRIES = 3;

/**
 * How far the server's clock is from ours. Of a few tries the fastest counts: half of what it took is
 * all that it can be wrong.
 */
export async function checkClock(
  db: Queryable,
  differenceMsMax: number,
  now: () => number = Date.now,
): Promise<readonly Finding[]> {
  let best = { tookMs: Infinity, differenceMs: 0 };
  for (let attempt = 0; attempt < CLOCK_TRIES; attempt += 1) {
    const askedAt = now();
    const { rows } = await db.query(
      `select (extract(epoch from clock_timestamp()) * 1000)::float8 as at`,
    );
    const tookMs = now() - askedAt;
    if (tookMs < best.tookMs) {
      best = { tookMs, differenceMs: (rows[0]!.at as number) - (askedAt + tookMs / 2) };
    }
  }
  return [judgeClock('PostgreSQL', best.differenceMs, differenceMsMax + best.tookMs / 2)];
}

export function judgeClock(server: string, differenceMs: number, differenceMsMax: number): Finding {
  const shown = `${(Math.abs(differenceMs) / 1_000).toFixed(1)} s`;
  if (Math.abs(differenceMs) <= differenceMsMax) {
    return ok(`the clocks of ${server} and this machine are ${shown} apart`);
  }
  const which = differenceMs > 0 ? 'ahead of' : 'behind';
  return warning(`the clock of ${server} is ${shown} ${which} this machine's`, {
    why: 'Totals stay right, but retries, delays and times in pages and logs are off by as much.',
    todo: 'On both machines, see which clock is not synchronised:',
    shell: ['timedatectl'],
  });
}

const STATEMENT_TIMEOUT_MIN_MS = 10_000;

/** Defaults of server, database and role that matter here. */
export async function checkSettings(
  db: Queryable,
  connectionsUsedMax: number,
): Promise<readonly Finding[]> {
  const { rows } = await db.query(
    `select name, setting, source,
            quote_ident(current_user) as role, quote_ident(current_database()) as database
       from pg_settings
      where name in ('default_transaction_isolation', 'fsync', 'full_page_writes')`,
  );
  const settings = new Map(rows.map((row) => [row.name as string, row as unknown as Setting]));
  return orOk(
    [
      ...judgeIsolation(settings.get('default_transaction_isolation')!),
      ...(await judgeStatementTimeout(db)),
      ...['fsync', 'full_page_writes'].flatMap((name) => judgeDurability(settings.get(name)!)),
      ...(await judgeConnections(db, connectionsUsedMax)),
    ],
    'isolation default, time limits, durability and free connections are as they should be',
  );
}

interface Setting {
  readonly name: string;
  readonly setting: string;
  readonly source: string;
  readonly role: string;
  readonly database: string;
}

function judgeIsolation(setting: Setting): Finding[] {
  if (setting.setting === 'read committed') return [];
  return [
    warning(`the default isolation level is ${setting.setting}`, {
      why:
        'gift-budgets sets READ COMMITTED itself and is not touched by it. Services that write ' +
        'under this default must retry on 40001, and see no total that is stored after they began.',
      todo: 'If it is not meant:',
      sql: [resetSql(setting)],
    }),
  ];
}

/** Where a default was set, there it is reset. */
function resetSql({ name, source, role, database }: Setting): string {
  const where: Readonly<Record<string, string>> = {
    user: `role ${role}`,
    database: `database ${database}`,
    'database user': `role ${role} in database ${database}`,
  };
  return `alter ${where[source] ?? 'system'} reset ${name};`;
}

/** Of the role and the database: our own connections here set another one. */
async function judgeStatementTimeout(db: Queryable): Promise<Finding[]> {
  const { rows } = await db.query(
    `select quote_ident(r.rolname) as role, quote_ident(d.datname) as database,
            substr(c, length('statement_timeout=') + 1) as value
       from pg_db_role_setting s
      cross join unnest(s.setconfig) as c
       left join pg_roles r on r.oid = s.setrole
       left join pg_database d on d.oid = s.setdatabase
      where c like 'statement\\_timeout=%'
        and (s.setrole = 0 or r.rolname = current_user)
        and (s.setdatabase = 0 or d.datname = current_database())`,
  );
  return rows.flatMap((row) => {
    const { role, database, value } = row as Record<string, string | null>;
    const ms = milliseconds(value!);
    if (ms === 0 || ms >= STATEMENT_TIMEOUT_MIN_MS) return [];
    const setFor = [
      ...(role === null ? [] : [`role ${role}`]),
      ...(database === null ? [] : [`database ${database}`]),
    ].join(' in ');
    return [
      warning(`statement_timeout is ${value} for ${setFor}`, {
        why: 'A batch that takes longer is broken off, and tried again in smaller ones.',
        todo: `Give it at least ${STATEMENT_TIMEOUT_MIN_MS / 1_000} s:`,
        sql: [`alter ${setFor} set statement_timeout = '${STATEMENT_TIMEOUT_MIN_MS / 1_000}s';`],
      }),
    ];
  });
}

const UNIT_MS: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

function milliseconds(value: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(value) ?? [];
  return Number(number ?? 0) * (UNIT_MS[unit || 'ms'] ?? 1);
}

function judgeDurability({ name, setting }: Setting): Finding[] {
  if (setting === 'on') return [];
  return [
    warning(`${name} is off`, {
      why: 'A crash of the machine can damage the database, marks and assignments with it.',
      todo: 'In the configuration of the server, or:',
      sql: [`alter system set ${name} = on;`, 'select pg_reload_conf();'],
    }),
  ];
}

async function judgeConnections(db: Queryable, usedMax: number): Promise<Finding[]> {
  const { rows } = await db.query(
    `select count(*)::int as used, current_setting('max_connections')::int as most
       from pg_stat_activity where backend_type = 'client backend'`,
  );
  const { used, most } = rows[0] as { used: number; most: number };
  if (used <= usedMax * most) return [];
  return [
    warning(`${used} of ${most} connections are in use`, {
      why: 'Whoever comes next may find none: a worker needs about 12, and as many again for a queue in PostgreSQL.',
      todo: 'See who has them:',
      sql: [
        'select application_name, usename, state, count(*) from pg_stat_activity group by 1, 2, 3 order by 4 desc;',
      ],
    }),
  ];
}
