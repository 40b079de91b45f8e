import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Pair } from '../src/events/contract.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { type Finding, sweepChunk, type SweptChunk } from '../src/recalculation/sweep.ts';
import { startSweeps, sweepIfDue } from '../src/recalculation/sweep-loop.ts';
import {
  beginSweep,
  findingsOf,
  lastSweeps,
  type SweepMode,
  unfinishedSweep,
} from '../src/recalculation/sweep-record.ts';
import { markEverything } from '../src/recalculation/write-marks.ts';
import {
  assign,
  assignBehindTriggers,
  countMarks,
  eventually,
  seedPairs,
  spent,
  wrongTotals,
} from './support/budgets.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const PAIRS = 24;

let database: TestDatabase;
let pairs: Pair[];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  await sql('truncate persons, occasions, gifts, recalculation_failures, budget_sweeps cascade');
  await sql('truncate pending_recalculations');
  pairs = await seedPairs(database.pool, PAIRS / 2, 2);
});

const sql = async (text: string, values: unknown[] = []) => await database.pool.query(text, values);
const drift = async (pair: Pair, amount: string) =>
  await assignBehindTriggers(database.pool, pair, amount);

/** Sweeps from the beginning to the end, five pairs a chunk. */
async function sweep(mode: SweepMode): Promise<Finding[]> {
  const chunks: SweptChunk[] = [];
  const observer = { sweep: (chunk: SweptChunk) => chunks.push(chunk) };
  await sweepIfDue({ pool: database.worker.pool, mode, intervalMs: 0, pairsMax: 5, observer });
  return chunks.flatMap(({ findings }) => findings);
}

describe('a sweep', () => {
  it('reports exactly what drifted, with stored and right, and changes nothing', async () => {
    await drift(pairs[3]!, '7.00');
    await drift(pairs[20]!, '-2.50');
    expect(await sweep('report')).toEqual([
      expect.objectContaining({ ...pairs[3], stored: '0.00', right: '7.00', outcome: 'reported' }),
      expect.objectContaining({
        ...pairs[20],
        stored: '0.00',
        right: '-2.50',
        outcome: 'reported',
      }),
    ]);
    expect(await spent(database.pool, pairs[3]!)).toBe('0.00');
    const [last] = await lastSweeps(database.worker.pool, 1);
    expect(last).toMatchObject({ mode: 'report', checked: PAIRS, drifted: 2, repaired: 0 });
    expect(last!.finishedAt!.getTime()).toBeGreaterThanOrEqual(last!.startedAt.getTime());
  });

  it('repairs what drifted, keeps the evidence, and finds nothing the second time', async () => {
    await drift(pairs[3]!, '7.00');
    await drift(pairs[4]!, '8.00');
    const found = await sweep('repair');
    expect(found.map(({ outcome }) => outcome)).toEqual(['repaired', 'repaired']);
    expect(await wrongTotals(database.pool)).toEqual([]);
    const [last] = await lastSweeps(database.worker.pool, 1);
    expect(last).toMatchObject({ mode: 'repair', checked: PAIRS, drifted: 2, repaired: 2 });
    expect(await findingsOf(database.pool, last!.id)).toEqual([
      expect.objectContaining({ ...pairs[3], stored: '0.00', right: '7.00', outcome: 'repaired' }),
      expect.objectContaining({ ...pairs[4], stored: '0.00', right: '8.00', outcome: 'repaired' }),
    ]);
    expect(await sweep('repair')).toEqual([]);
    expect(await countMarks(database.pool)).toBe(0);
  });

  it('takes nothing that is pending for drift, by a mark of its own or for everything', async () => {
    await assign(database.upstream.pool, pairs[0]!, '5.00');
    expect(await sweep('repair')).toEqual([]);
    await sql('truncate pending_recalculations');
    await markEverything(database.pool);
    expect(await sweep('repair')).toEqual([]);
    expect(await spent(database.pool, pairs[0]!)).toBe('0.00');
  });

  it('leaves a drifted pair whose row is held to catch-up', async () => {
    await drift(pairs[1]!, '3.00');
    const holder = await database.pool.connect();
    try {
      await holder.query('begin; select from person_occasions for update');
      expect(await sweep('repair')).toEqual([
        expect.objectContaining({ ...pairs[1], outcome: 'marked' }),
      ]);
    } finally {
      await holder.query('rollback');
      holder.release();
    }
    await catchUp();
    expect(await spent(database.pool, pairs[1]!)).toBe('3.00');
    expect(await sweep('repair')).toEqual([]);
  });

  it('lists a sum that cannot be stored once, and stores it when it fits again', async () => {
    await drift(pairs[2]!, '99999999.99');
    await drift(pairs[2]!, '0.01');
    expect(await sweep('repair')).toEqual([
      expect.objectContaining({ ...pairs[2], right: '100000000.00', outcome: 'failed' }),
    ]);
    expect(await sweep('repair')).toEqual([]);
    await drift(pairs[2]!, '-0.01');
    await sweep('repair');
    expect(await spent(database.pool, pairs[2]!)).toBe('99999999.99');
    expect((await sql('select from recalculation_failures')).rowCount).toBe(0);
  });

  it('goes past a pair whose sum fails, and past one whose total somebody refuses', async () => {
    await drift(pairs[5]!, '13.00');
    await drift(pairs[6]!, '6.00');
    await drift(pairs[7]!, '7.00');
    await sql('alter table person_occasions add constraint no_13 check (budget_spent <> 13)');
    await sql(
      `create or replace view budget_contributions (person_id, occasion_id, amount) as
       select person_id, occasion_id,
              (case when (person_id, occasion_id) = (${pairs[6]!.personId}, ${pairs[6]!.occasionId})
                    then 1 / (id - id) else amount end)::numeric(10,2)
         from gift_persons where occasion_id is not null and amount is not null`,
    );
    try {
      const found = new Map(
        (await sweep('repair')).map((one) => [one.personId + one.occasionId, one]),
      );
      const outcome = (pair: Pair) => found.get(pair.personId + pair.occasionId)?.outcome;
      expect(outcome(pairs[5]!)).toBe('marked');
      expect(outcome(pairs[6]!)).toBe('failed');
      expect(['repaired', 'marked']).toContain(outcome(pairs[7]!));
      await catchUp();
      expect(await spent(database.pool, pairs[7]!)).toBe('7.00');
      const { rows } = await sql('select reason from recalculation_failures order by reason');
      expect(rows.map((row) => row.reason)).toEqual([
        'division by zero',
        expect.stringContaining('no_13'),
      ]);
      expect(await sweep('repair')).toEqual([]);
    } finally {
      await sql('alter table person_occasions drop constraint no_13');
      await sql(
        `create or replace view budget_contributions (person_id, occasion_id, amount) as
         select person_id, occasion_id, amount
           from gift_persons where occasion_id is not null and amount is not null`,
      );
    }
  });

  it('that was left in the middle is gone on with where it was', async () => {
    await beginSweep(database.worker.pool, 'repair', 0);
    const { id } = (await unfinishedSweep(database.worker.pool))!;
    await sweepChunk(database.worker.pool, id, 1);
    await sweepChunk(database.worker.pool, id, 1);
    await drift(pairs[0]!, '1.00'); // behind it
    await drift(pairs[23]!, '2.00'); // ahead of it
    expect((await sweep('repair')).map(({ stored, right }) => [stored, right])).toEqual([
      ['0.00', '2.00'],
    ]);
    const all = await lastSweeps(database.worker.pool, 10);
    expect(all).toMatchObject([{ id, checked: PAIRS, repaired: 1 }]);
  });

  it('is done by one process at a time, each pair once', async () => {
    for (const pair of pairs) await drift(pair, '1.00');
    const chunks: SweptChunk[] = [];
    const observer = { sweep: (chunk: SweptChunk) => chunks.push(chunk) };
    const options = { pool: database.worker.pool, mode: 'repair', pairsMax: 2, observer } as const;
    await Promise.all(
      [1, 2, 3].map(async () => await sweepIfDue({ ...options, intervalMs: 60_000 })),
    );
    // Whoever was skipped has left; whoever is last may have to be helped to the end.
    await sweepIfDue({ ...options, intervalMs: 60_000 });
    const [last, ...others] = await lastSweeps(database.worker.pool, 10);
    expect(others).toEqual([]);
    expect(last).toMatchObject({ checked: PAIRS, drifted: PAIRS, repaired: PAIRS });
    expect(chunks.reduce((sum, { checked }) => sum + checked, 0)).toBe(PAIRS);
  });

  it('keeps the first thousand findings as evidence, and counts them all', async () => {
    await seedPairs(database.pool, 600, 2);
    await sql('truncate pending_recalculations');
    await sql('alter table person_occasions disable trigger person_occasions_mark_updated');
    await sql('update person_occasions set budget_spent = 1');
    await sql('alter table person_occasions enable trigger person_occasions_mark_updated');
    await sweepIfDue({ pool: database.worker.pool, mode: 'report', intervalMs: 0, pairsMax: 500 });
    const [last] = await lastSweeps(database.worker.pool, 1);
    expect(last!.drifted).toBe(1_200 + PAIRS);
    expect(await findingsOf(database.pool, last!.id)).toHaveLength(1_000);
  });
});

describe('the schedule of the sweeps', () => {
  it('begins one when the last began long enough ago, and not before', async () => {
    expect(await beginSweep(database.worker.pool, 'repair', 3_600_000)).toBe(true);
    await sweep('repair');
    expect(await beginSweep(database.worker.pool, 'repair', 3_600_000)).toBe(false);
    await sql(`update budget_sweeps set started_at = started_at - interval '61 minutes'`);
    expect(await beginSweep(database.worker.pool, 'repair', 3_600_000)).toBe(true);
  });

  it('begins one only, whoever asks at the same time', async () => {
    const asked = Array.from({ length: 10 }, () => beginSweep(database.worker.pool, 'repair', 0));
    expect((await Promise.all(asked)).filter(Boolean)).toHaveLength(1);
  });

  it('is followed by the loop, which goes on after a lost connection and stops when asked', async () => {
    await drift(pairs[9]!, '4.00');
    const options = {
      pool: database.worker.pool,
      mode: 'repair',
      intervalMs: 10,
      pairsMax: 5,
    } as const;
    const loops = [startSweeps(options), startSweeps(options)];
    await eventually(
      async () => await spent(database.pool, pairs[9]!),
      (stored) => stored === '4.00',
    );
    await sql(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`,
    );
    await drift(pairs[10]!, '5.00');
    await eventually(
      async () => await spent(database.pool, pairs[10]!),
      (stored) => stored === '5.00',
    );
    await Promise.all(loops.map(async (loop) => await loop.stop()));
    const count = async () => (await sql('select count(*) from budget_sweeps')).rows[0].count;
    const before = await count();
    await drift(pairs[11]!, '6.00');
    expect(await count()).toBe(before);
  });

  it('keeps the last thousand sweeps', async () => {
    await sql(
      `insert into budget_sweeps (mode, started_at, finished_at)
       select 'repair', now() - n * interval '1 hour', now() - n * interval '1 hour'
         from generate_series(1, 1005) n`,
    );
    await sweep('repair');
    expect(await lastSweeps(database.worker.pool, 2_000)).toHaveLength(1_000);
  });
});

async function catchUp(): Promise<void> {
  const timing = { pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 };
  while (await catchUpOnce({ pool: database.worker.pool, pairsMax: 500, ...timing }));
}
