import type pg from 'pg';
import { describeError } from '../../describe-error.ts';
import type { QueueConnection } from '../../queue.ts';
import { createVitalsPool, LONG_LAG_SECONDS } from '../vitals.ts';
import { checkBypasses } from './bypasses.ts';
import { error, type Finding, warning } from './finding.ts';
import { checkHolders, checkPrepared, checkSnapshots } from './holders.ts';
import { checkIndexes } from './indexes.ts';
import { checkPrivileges } from './privileges.ts';
import { checkQueueTables } from './queue-tables.ts';
import { checkRedis } from './redis.ts';
import { checkSchema } from './schema.ts';
import { checkClock, checkServer, checkSettings } from './server.ts';
import { checkStorage } from './storage.ts';
import { checkTriggers } from './triggers.ts';
import { checkWork } from './work.ts';

/** A finding and the check that made it. */
export interface CheckedFinding extends Finding {
  readonly check: string;
}

export interface Examined {
  readonly databaseUrl: string;
  /** Whether a pooler in transaction mode stands in between. */
  readonly pooled?: boolean;
  /** Why the database cannot be connected to, where that is known already. */
  readonly unreachable: string | null;
  readonly queue: QueueConnection;
  /** The names of the migrations that this version needs. */
  readonly knownMigrations: readonly string[];
  /** The clock of this machine. */
  readonly now?: () => number;
  readonly limits?: Partial<Limits>;
}

/** From where on something is told. */
export interface Limits {
  readonly clockDifferenceMs: number;
  readonly lagSeconds: number;
  /** How long a session may hold budgets, or a transaction stay prepared. */
  readonly holdSeconds: number;
  readonly snapshotSeconds: number;
  readonly deadMarks: number;
  /** The share of the server's connections. */
  readonly connectionsUsed: number;
}

/** Dead marks: a look took 217 ms behind 1.5 million, and 0.3 behind none. */
const LIMITS: Limits = {
  clockDifferenceMs: 1_000,
  lagSeconds: LONG_LAG_SECONDS,
  holdSeconds: 60,
  snapshotSeconds: 300,
  deadMarks: 100_000,
  connectionsUsed: 0.9,
};

type Check = readonly [name: string, look: () => Promise<readonly Finding[]>];

/**
 * Looks at all that the work rests on, one thing after the other, and changes nothing. What cannot be
 * looked at is a finding too.
 */
export async function* examine(examined: Examined): AsyncGenerator<CheckedFinding> {
  const { queue, now } = examined;
  const limits = { ...LIMITS, ...examined.limits };
  if (examined.unreachable === null) yield* examineDatabase(examined, limits);
  else yield { check: 'server', ...unreachable(examined.unreachable) };
  if (queue.backend === 'redis') {
    yield* runChecks([
      ['redis', async () => await checkRedis(queue.url, limits.clockDifferenceMs, now)],
    ]);
  }
}

function unreachable(reason: string): Finding {
  return error(reason, {
    why: 'No total can become right until it answers. Nothing is lost meanwhile.',
    todo: 'Is it running, and is DATABASE_URL right?',
    shell: ['psql "$DATABASE_URL" -c "select 1"'],
  });
}

async function* examineDatabase(
  { databaseUrl, pooled, queue, knownMigrations, now }: Examined,
  limits: Limits,
): AsyncGenerator<CheckedFinding> {
  const pool = createVitalsPool(databaseUrl, { pooled, applicationName: 'gift-budgets doctor' });
  try {
    let isMigrated = true;
    yield* runChecks([
      ['server', async () => await checkServer(pool)],
      ['clock', async () => await checkClock(pool, limits.clockDifferenceMs, now)],
      ['settings', async () => await checkSettings(pool, limits.connectionsUsed)],
      [
        'schema',
        async () => {
          const { findings, fit } = await checkSchema(pool, knownMigrations);
          isMigrated = fit.state !== 'older';
          return findings;
        },
      ],
    ]);
    // Of what a missing migration makes, each piece would be told as missing again.
    if (isMigrated) yield* runChecks(checksOfTables(pool, limits));
    yield* runChecks([
      ['prepared', async () => await checkPrepared(pool, limits.holdSeconds)],
      ['snapshots', async () => await checkSnapshots(pool, limits.snapshotSeconds)],
    ]);
    if (queue.backend === 'postgres') {
      yield* runChecks([['queue', async () => await checkQueueTables(pool, queue.schema)]]);
    }
  } finally {
    await pool.end();
  }
}

function checksOfTables(pool: pg.Pool, limits: Limits): Check[] {
  return [
    ['privileges', async () => await checkPrivileges(pool)],
    ['triggers', async () => await checkTriggers(pool)],
    ['bypasses', async () => await checkBypasses(pool)],
    ['indexes', async () => await checkIndexes(pool)],
    ['storage', async () => await checkStorage(pool, limits.deadMarks)],
    ['work', async () => await checkWork(pool, limits.lagSeconds)],
    ['holders', async () => await checkHolders(pool, limits.lagSeconds, limits.holdSeconds)],
  ];
}

async function* runChecks(checks: readonly Check[]): AsyncGenerator<CheckedFinding> {
  for (const [check, look] of checks) {
    const findings = await look().catch((cause: unknown) => [couldNotLook(cause)]);
    for (const finding of findings) yield { check, ...finding };
  }
}

/** A privilege that the look lacks is told by the check of privileges, where the work needs it too. */
const INSUFFICIENT_PRIVILEGE = '42501';

function couldNotLook(cause: unknown): Finding {
  const isRefused = (cause as { code?: string }).code === INSUFFICIENT_PRIVILEGE;
  const tell = isRefused ? warning : error;
  return tell(`could not be looked at: ${describeError(cause)}`, {
    why: 'Whether it is as it should be is not known.',
    todo: isRefused
      ? 'Grant what is missing, or ask again under a role that may look.'
      : 'Mend what the message says, and ask again.',
  });
}
