import type { Queryable } from '../database.ts';
import type { Pair } from '../events/contract.ts';
import type { ComparedChunk } from './compare.ts';
import type { Finding } from './sweep.ts';

/** What a sweep does with what it finds: tell of it, or repair it too. */
export type SweepMode = 'report' | 'repair';

/** A sweep as its row in `budget_sweeps` has it; counts are of pairs. */
export interface Sweep {
  /** A bigint as a decimal string. */
  readonly id: string;
  readonly mode: SweepMode;
  readonly startedAt: Date;
  /** Null while it is under way, or until somebody goes on with it. */
  readonly finishedAt: Date | null;
  /** The last pair that was compared; null before the first. */
  readonly after: Pair | null;
  readonly checked: number;
  readonly drifted: number;
  readonly repaired: number;
  /** Of those that drifted, how many have a sum that cannot be stored. */
  readonly failed: number;
}

/** How many findings of one sweep are kept as evidence; the counts cover all. */
const FINDINGS_KEPT_MAX = 1_000;

/** How many sweeps are kept: at one an hour, those of six weeks. */
const SWEEPS_KEPT_MAX = 1_000;

const COLUMNS = `id::text, mode,
  extract(epoch from started_at)::float8 as "startedAt",
  extract(epoch from finished_at)::float8 as "finishedAt",
  person_id::text as "personId", occasion_id::text as "occasionId",
  checked::float8, drifted::float8, repaired::float8, failed::float8`;

/**
 * Begins a sweep, unless one is unfinished: a unique index allows no second one.
 *
 * @param intervalMs only if the last one began so long ago; 0 at any time. The times are
 *   PostgreSQL's, so that all processes have one schedule, and a restart, or a queue that was
 *   wiped, forgets nothing.
 * @returns whether one was begun.
 */
export async function beginSweep(
  db: Queryable,
  mode: SweepMode,
  intervalMs: number,
): Promise<boolean> {
  const { rows } = await db.query(
    `insert into budget_sweeps (mode)
     select $1::text
      where not exists (
              select from budget_sweeps
               where finished_at is null
                  or started_at > clock_timestamp() - $2::float8 * interval '1 ms'
            )
         on conflict do nothing
     returning 1`,
    [mode, intervalMs],
  );
  return rows.length > 0;
}

/** The sweep that is under way, or was left unfinished. */
export async function unfinishedSweep(db: Queryable): Promise<Sweep | null> {
  const { rows } = await db.query(`select ${COLUMNS} from budget_sweeps where finished_at is null`);
  return rows[0] === undefined ? null : toSweep(rows[0]);
}

/** The last sweeps, the newest first. */
export async function lastSweeps(db: Queryable, count: number): Promise<Sweep[]> {
  const { rows } = await db.query(
    `select ${COLUMNS} from budget_sweeps order by budget_sweeps.id desc limit $1::int`,
    [count],
  );
  return rows.map(toSweep);
}

/** The sweep with this id; null where it was forgotten long ago. */
export async function findSweep(db: Queryable, id: string): Promise<Sweep | null> {
  const { rows } = await db.query(`select ${COLUMNS} from budget_sweeps where id = $1::bigint`, [
    id,
  ]);
  return rows[0] === undefined ? null : toSweep(rows[0]);
}

/** A finding as it was kept. */
export interface KeptFinding extends Pair {
  /** A bigint as a decimal string. */
  readonly id: string;
  readonly stored: string;
  readonly right: string | null;
  readonly outcome: Finding['outcome'];
  readonly reason: string | null;
}

/** What a sweep found, in the order it did: at most the first thousand. */
export async function findingsOf(
  db: Queryable,
  sweepId: string,
  afterId = '0',
): Promise<KeptFinding[]> {
  const { rows } = await db.query(
    `select id::text, person_id::text as "personId", occasion_id::text as "occasionId",
            stored, right_total as "right", outcome, reason
       from budget_sweep_findings
      where sweep_id = $1::bigint and id > $2::bigint
      order by budget_sweep_findings.id`,
    [sweepId, afterId],
  );
  return rows as unknown as KeptFinding[];
}

/** Locks an unfinished sweep until the transaction ends; null where it is finished or locked. */
export async function lockSweep(client: Queryable, id: string): Promise<Sweep | null> {
  const { rows } = await client.query(
    `select ${COLUMNS} from budget_sweeps
      where id = $1::bigint and finished_at is null
        for update skip locked`,
    [id],
  );
  return rows[0] === undefined ? null : toSweep(rows[0]);
}

/** Moves the sweep past the chunk, counts and keeps what was found; without a chunk, ends it. */
export async function advanceSweep(
  client: Queryable,
  { id }: Sweep,
  chunk: ComparedChunk | null,
  findings: readonly Finding[],
): Promise<Sweep> {
  const count = (of: Finding['outcome']): number =>
    findings.filter(({ outcome }) => outcome === of).length;
  if (findings.length > 0) await keepFindings(client, id, findings);
  const { rows } = await client.query(
    `update budget_sweeps
        set person_id = coalesce($2::bigint, person_id),
            occasion_id = coalesce($3::bigint, occasion_id),
            checked = checked + $4::int,
            drifted = drifted + $5::int,
            repaired = repaired + $6::int,
            failed = failed + $7::int,
            finished_at = case when $2::bigint is null then clock_timestamp() end
      where id = $1::bigint
     returning ${COLUMNS}`,
    [
      id,
      chunk?.last.personId ?? null,
      chunk?.last.occasionId ?? null,
      chunk?.checked ?? 0,
      findings.length,
      count('repaired'),
      count('failed'),
    ],
  );
  if (chunk === null) await forgetOldSweeps(client, id);
  return toSweep(rows[0]!);
}

async function keepFindings(
  client: Queryable,
  sweepId: string,
  findings: readonly Finding[],
): Promise<void> {
  await client.query(
    `insert into budget_sweep_findings
            (sweep_id, person_id, occasion_id, stored, right_total, outcome, reason)
     select $1::bigint, *
       from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[])
      limit greatest(0, $8::int - (
              select count(*) from budget_sweep_findings where sweep_id = $1::bigint
            ))`,
    [
      sweepId,
      findings.map(({ personId }) => personId),
      findings.map(({ occasionId }) => occasionId),
      findings.map(({ stored }) => stored),
      findings.map(({ right }) => right),
      findings.map(({ outcome }) => outcome),
      findings.map(({ reason }) => reason),
      FINDINGS_KEPT_MAX,
    ],
  );
}

async function forgetOldSweeps(client: Queryable, id: string): Promise<void> {
  await client.query(
    `delete from budget_sweeps
      where id <= (select id from budget_sweeps where id <= $1::bigint
                    order by id desc offset $2::int limit 1)`,
    [id, SWEEPS_KEPT_MAX],
  );
}

interface Row extends Omit<Sweep, 'startedAt' | 'finishedAt' | 'after'>, Partial<Pair> {
  readonly startedAt: number;
  readonly finishedAt: number | null;
}

function toSweep(row: Record<string, unknown>): Sweep {
  const { personId, occasionId, startedAt, finishedAt, ...sweep } = row as unknown as Row;
  return {
    ...sweep,
    startedAt: new Date(startedAt * 1_000),
    finishedAt: finishedAt === null ? null : new Date(finishedAt * 1_000),
    after: personId && occasionId ? { personId, occasionId } : null,
  };
}
