import type pg from 'pg';
import type { Pair } from '../events/contract.ts';
import { faultOf } from './faults.ts';
import { BUDGET_SPENT_LIMIT } from './store-totals.ts';

export interface ExplainedAssignment {
  /** Null where a table that others made has no column `id`. */
  readonly id: string | null;
  readonly gift: string;
  /** Null where the price is not known, which counts as nothing. */
  readonly amount: string | null;
}

/** All that decides whether the stored total of a budget is right, of one moment. */
export interface ExplainedBudget extends Pair {
  readonly person: string;
  readonly occasion: string;
  readonly stored: string;
  /** The sum of the contributions; null where it cannot be computed, for `rightError`. */
  readonly right: string | null;
  readonly rightError: string | null;
  /** Whether the sum can be stored. */
  readonly fits: boolean;
  readonly contributions: number | null;
  /** How many assignments there are, and how many of them have an amount. */
  readonly assignments: number;
  readonly assignmentsWithAmount: number;
  readonly assignmentsSum: string;
  readonly firstAssignments: readonly ExplainedAssignment[];
  readonly marks: number;
  readonly oldestMarkSeconds: number | null;
  /** The age of the oldest mark for everything that stands for this budget; null without one. */
  readonly everythingMarkSeconds: number | null;
  readonly failure: {
    readonly reason: string;
    readonly total: string | null;
    readonly attempts: number;
    readonly secondsSinceFirst: number;
    readonly secondsSinceLast: number;
  } | null;
}

/** How many assignments are told one by one. */
const ASSIGNMENTS_TOLD_MAX = 50;

/** A table that is being migrated is not waited for for ever. */
const BEGIN = `
  begin isolation level repeatable read read only;
  set local lock_timeout = '2s'`;

/**
 * Reads it all under one snapshot. The sum is a statement of its own behind a savepoint, because an
 * error in a replaced `budget_contributions` must not hide the rest.
 *
 * @returns null where there is no such budget.
 */
export async function explainBudget(pool: pg.Pool, pair: Pair): Promise<ExplainedBudget | null> {
  const client = await pool.connect();
  try {
    await client.query(BEGIN);
    const facts = await readFacts(client, pair);
    return facts && ({ ...facts, ...(await readSum(client, pair)) } as unknown as ExplainedBudget);
  } finally {
    await client.query('rollback').then(
      () => client.release(),
      (error: Error) => client.release(error),
    );
  }
}

async function readFacts(
  client: pg.PoolClient,
  { personId, occasionId }: Pair,
): Promise<object | null> {
  const { rows } = await client.query<Record<string, unknown>>(
    `select b.person_id::text as "personId", b.occasion_id::text as "occasionId",
            coalesce(p.name, '') as person, coalesce(o.name, '') as occasion, b.budget_spent::text as stored,
            a.*, m.*, e.*,
            case when f.person_id is not null then json_build_object(
              'reason', f.reason, 'total', f.total, 'attempts', f.attempts,
              'secondsSinceFirst', extract(epoch from clock_timestamp() - f.first_failed_at)::float8,
              'secondsSinceLast', extract(epoch from clock_timestamp() - f.last_failed_at)::float8
            ) end as failure
       from person_occasions b
       join persons p on p.id = b.person_id
       join occasions o on o.id = b.occasion_id
       left join recalculation_failures f
         on f.person_id = b.person_id and f.occasion_id = b.occasion_id
      cross join lateral (
        select count(*)::float8 as assignments, count(amount)::float8 as "assignmentsWithAmount",
               round(coalesce(sum(amount), 0), 2)::text as "assignmentsSum"
          from gift_persons a
         where a.person_id = b.person_id and a.occasion_id = b.occasion_id
      ) as a
      cross join lateral (
        select count(*)::float8 as marks,
               extract(epoch from clock_timestamp() - min(marked_at))::float8 as "oldestMarkSeconds"
          from pending_recalculations m
         where m.person_id = b.person_id and m.occasion_id = b.occasion_id and not m.everything
      ) as m
      cross join lateral (
        select extract(epoch from clock_timestamp() - min(marked_at))::float8 as "everythingMarkSeconds"
          from pending_recalculations e
         where e.everything
           and (e.person_id is null or e.occasion_id is null
                or (e.person_id, e.occasion_id) < (b.person_id, b.occasion_id))
      ) as e
      where b.person_id = $1::bigint and b.occasion_id = $2::bigint`,
    [personId, occasionId],
  );
  if (rows[0] === undefined) return null;
  const { rows: firstAssignments } = await client.query(
    `select i.id, g.name as gift, a.amount::text
       from gift_persons a
       join gifts g on g.id = a.gift_id
      cross join lateral (select to_jsonb(a) ->> 'id' as id) as i
      where a.person_id = $1::bigint and a.occasion_id = $2::bigint
      order by length(i.id), i.id, a.gift_id
      limit $3::int`,
    [personId, occasionId, ASSIGNMENTS_TOLD_MAX],
  );
  return { ...rows[0], firstAssignments };
}

/** Rounded as a recalculation does it; NaN compares as too large. */
async function readSum(
  client: pg.PoolClient,
  { personId, occasionId }: Pair,
): Promise<object | undefined> {
  await client.query('savepoint summing');
  try {
    const { rows } = await client.query<Record<string, unknown>>(
      `select contributions, total::text as "right", null as "rightError",
              total > -${BUDGET_SPENT_LIMIT} and total < ${BUDGET_SPENT_LIMIT} as fits
         from (
           select count(*)::float8 as contributions,
                  round(coalesce(sum(c.amount), 0), 2) as total
             from budget_contributions c
            where c.person_id = $1::bigint and c.occasion_id = $2::bigint
         ) as c`,
      [personId, occasionId],
    );
    return rows[0];
  } catch (error) {
    if (faultOf(error) === 'environment') throw error;
    await client.query('rollback to savepoint summing');
    const { message } = error as Error;
    return { contributions: null, right: null, rightError: message, fits: false };
  }
}
