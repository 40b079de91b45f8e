import pg from 'pg';
import { type Lag, readLag } from '../budgets/lag.ts';
import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import type { OpenQueue } from '../queue.ts';
import { countFailures, type ListedFailure, readFailures } from '../recalculation/failures.ts';
import { lastSweeps, type Sweep } from '../recalculation/sweep-record.ts';
import { type QueueState, readQueueState } from './queue-state.ts';
import { type Reading, sampled } from './sampled.ts';
import type { SchemaFit } from './schema-watch.ts';

/** All that tells how things stand, for pages, metrics and probes alike. */
export interface Vitals {
  readonly lag: () => Promise<Reading<LagNow>>;
  readonly failures: () => Promise<Reading<FailuresNow>>;
  readonly sweeps: () => Promise<Reading<readonly Sweep[]>>;
  readonly queue: () => Promise<Reading<QueueState>>;
  /** Answers only where the database does. */
  readonly schema: () => Promise<Reading<SchemaFit>>;
}

export interface LagNow extends Lag {
  /** The pair that waits longest, where one waits long; null also for a mark for everything. */
  readonly waitsLongest: Pair | null;
}

export interface FailuresNow {
  /** Counted up to 10,000. */
  readonly count: number;
  readonly first: readonly ListedFailure[];
}

export interface VitalsOptions {
  readonly db: Queryable;
  readonly queue: OpenQueue;
  readonly lookAtSchema: () => Promise<SchemaFit>;
}

/** A lag beyond this is no longer the moment that a recalculation takes. */
export const LONG_LAG_SECONDS = 10;

const FAILURES_COUNTED_MAX = 10_000;
const FAILURES_SHOWN_MAX = 5;
const SWEEPS_SHOWN_MAX = 5;

const WAIT_MAX_MS = 2_000;

export function createVitals({ db, queue, lookAtSchema }: VitalsOptions): Vitals {
  const soon = { maxAgeMs: 1_000, waitMaxMs: WAIT_MAX_MS };
  return {
    lag: sampled(async () => await readLagNow(db), soon),
    failures: sampled(async () => await readFailuresNow(db), soon),
    sweeps: sampled(async () => await lastSweeps(db, SWEEPS_SHOWN_MAX), soon),
    queue: sampled(async () => await readQueueState(queue), soon),
    schema: sampled(lookAtSchema, soon),
  };
}

/** No question of ours is worth more of the server's time; the lag can be slow among dead marks. */
const ANSWER_TIMEOUT_MS = 20_000;
const CONNECT_TIMEOUT_MS = 2_000;

/** Connections of their own: who looks must not take those of the work, and must not hang. */
export function createVitalsPool(
  connectionString: string,
  { pooled = false, applicationName = 'gift-budgets monitor' } = {},
): pg.Pool {
  const pool = new pg.Pool({
    connectionString,
    max: 2,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: ANSWER_TIMEOUT_MS,
    // A pooler in transaction mode takes no setting for a session.
    ...(pooled ? {} : { statement_timeout: ANSWER_TIMEOUT_MS }),
  });
  pool.on('error', () => {});
  return pool;
}

async function readLagNow(db: Queryable): Promise<LagNow> {
  const lag = await readLag(db);
  return { ...lag, waitsLongest: lag.seconds > LONG_LAG_SECONDS ? await firstMarked(db) : null };
}

async function firstMarked(db: Queryable): Promise<Pair | null> {
  const { rows } = await db.query(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from pending_recalculations
      where not everything
      order by id
      limit 1`,
  );
  return (rows[0] as unknown as Pair | undefined) ?? null;
}

async function readFailuresNow(db: Queryable): Promise<FailuresNow> {
  const count = await countFailures(db, FAILURES_COUNTED_MAX);
  const { value } = await readFailures(db, {}, FAILURES_SHOWN_MAX).next();
  return { count, first: value ?? [] };
}
