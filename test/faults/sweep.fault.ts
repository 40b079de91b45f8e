import { expect, it } from 'vitest';
import type { Pair } from '../../src/events/contract.ts';
import type { KeptFinding, Sweep } from '../../src/recalculation/sweep-record.ts';
import { eventually } from '../support/budgets.ts';
import { runProgram, startProgram } from '../support/run-program.ts';
import type { TestDatabase } from '../support/servers.ts';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters } from './support/load.ts';
import {
  clientSender,
  describeQueues,
  openScene,
  type Scene,
  startWorkerProcess,
} from './support/scene.ts';

/** The last pairs of a scene, which the writers leave alone, so that what drifts is known. */
const PLANTED = 60;

describeQueues('what goes round the triggers', (backend) => {
  it('is found by a repair exactly as planted, under load, and is gone the second time', async () => {
    const scene = await openScene(backend);
    const { database, queue } = scene;
    await startWorkerProcess(database, queue, { GIFT_BUDGETS_SWEEP_MODE: 'off' });
    const writers = startWriters(database, others(scene), { send: clientSender(queue) });
    await giveEach(database, planted(scene), '10.00');
    const [loaded, restored, saved] = thirds(planted(scene));
    await database.pool.query('create table dump as select * from gift_persons');
    await giveEach(database, restored, '1.00');
    await untilStored(database, restored, '11.00');
    await untilStored(database, [...loaded, ...saved], '10.00');

    await behindTriggers(
      database,
      `insert into gift_persons (gift_id, person_id, occasion_id, amount)
       select (select min(id) from gifts), person_id, occasion_id, 2.5 from k`,
      loaded,
    );
    await behindTriggers(
      database,
      `delete from gift_persons g using k where ${samePair('g')}`,
      restored,
    );
    await behindTriggers(
      database,
      `insert into gift_persons select d.* from dump d join k on ${samePair('d')}`,
      restored,
    );
    await behindTriggers(
      database,
      `update person_occasions b set budget_spent = 77, budget_notes = 'stale' from k
        where ${samePair('b')}`,
      saved,
    );

    const first = await repair(database);
    const evidence = new Map(
      first.findings.map((found) => [key(found), [found.stored, found.right]]),
    );
    const expected = new Map<string, [string, string]>([
      ...loaded.map((pair) => [key(pair), ['10.00', '12.50']] as [string, [string, string]]),
      ...restored.map((pair) => [key(pair), ['11.00', '10.00']] as [string, [string, string]]),
      ...saved.map((pair) => [key(pair), ['77.00', '10.00']] as [string, [string, string]]),
    ]);
    expect(evidence).toEqual(expected);
    expect(first.sweep).toMatchObject({ drifted: PLANTED, repaired: PLANTED, failed: 0 });
    const second = await repair(database);
    expect(second.findings).toEqual([]);
    expect(second.sweep).toMatchObject({ checked: scene.pairs.length, drifted: 0 });

    const written = await writers.stop();
    const note = `${PLANTED} planted, ${first.sweep.drifted} found and repaired, then ${second.sweep.drifted}`;
    await expectAtRest(database.pool, queue, { name: 'triggers off', written, note });
  }, 120_000);

  it('is repaired by the worker itself when a sweep is due', async () => {
    const scene = await openScene(backend);
    const { database, queue } = scene;
    await startWorkerProcess(database, queue, { GIFT_BUDGETS_SWEEP_INTERVAL_MS: '1000' });
    await startWorkerProcess(database, queue, { GIFT_BUDGETS_SWEEP_INTERVAL_MS: '1000' });
    const writers = startWriters(database, others(scene), { send: clientSender(queue) });
    await giveEach(database, planted(scene), '10.00');
    await untilStored(database, planted(scene), '10.00');
    await behindTriggers(
      database,
      `update gift_persons g set amount = 3 from k where ${samePair('g')}`,
      planted(scene),
    );
    await untilStored(database, planted(scene), '3.00');
    const { rows } = await database.pool.query(
      'select sum(drifted)::int as drifted, sum(repaired)::int as repaired from budget_sweeps',
    );
    expect(rows).toEqual([{ drifted: PLANTED, repaired: PLANTED }]);
    const written = await writers.stop();
    await expectAtRest(database.pool, queue, { name: 'scheduled sweep', written });
  }, 120_000);
});

describeQueues('what the triggers see', (backend) => {
  it('a stale save of whole rows, and TRUNCATE: the marks mend it, and a sweep finds nothing', async () => {
    const scene = await openScene(backend);
    const { database, queue } = scene;
    await startWorkerProcess(database, queue, { GIFT_BUDGETS_SWEEP_MODE: 'off' });
    const writers = startWriters(database, others(scene), { send: clientSender(queue) });
    await giveEach(database, planted(scene), '10.00');
    await untilStored(database, planted(scene), '10.00');
    await database.pool.query(
      `with k as (${KEYS}) update person_occasions b set budget_spent = 77 from k where ${samePair('b')}`,
      keysOf(planted(scene)),
    );
    const afterSave = await repair(database);
    expect(afterSave.findings).toEqual([]);
    await untilStored(database, planted(scene), '10.00');
    await database.pool.query('truncate gift_persons');
    const afterTruncate = await repair(database);
    expect(afterTruncate.findings).toEqual([]);
    await untilStored(database, planted(scene), '0.00');
    const written = await writers.stop();
    await expectAtRest(database.pool, queue, { name: 'stale save and truncate', written });
  }, 120_000);
});

describeQueues('a repair that is killed', (backend) => {
  it('is gone on with where it was, and repairs each pair once', async () => {
    const scene = await openScene(backend, { persons: 20, occasions: 2 });
    const { database, queue } = scene;
    await database.pool.query(
      `insert into persons (name) select 'p' from generate_series(1, 40000)`,
    );
    await database.pool.query(
      `insert into person_occasions (person_id, occasion_id)
       select id, $1 from persons on conflict do nothing`,
      [scene.pairs[0]!.occasionId],
    );
    await startWorkerProcess(database, queue, { GIFT_BUDGETS_SWEEP_MODE: 'off' });
    await eventually(
      async () =>
        (await database.pool.query('select from pending_recalculations limit 1')).rowCount,
      (marks) => marks === 0,
      60_000,
    );
    const writers = startWriters(database, scene.pairs, { send: clientSender(queue) });
    await behindTriggers(
      database,
      `update person_occasions b set budget_spent = 5
        where person_id % 10 = 0 and (person_id, occasion_id) not in (select person_id, occasion_id from k)`,
      scene.pairs,
    );
    const killed: number[] = [];
    for (const least of [1, 12_000, 25_000]) {
      const program = startProgram(['repair'], { DATABASE_URL: database.worker.url });
      await eventually(
        async () => (await progress(database)).checked,
        (checked) => checked >= least,
      );
      program.kill('SIGKILL');
      await program.ended();
      killed.push((await progress(database)).checked);
    }
    const { sweep, findings } = await repair(database);
    const sweeps = await database.pool.query('select from budget_sweeps');
    expect(sweeps.rowCount).toBe(1);
    expect(sweep.repaired).toBe(sweep.drifted);
    expect(sweep.drifted).toBeGreaterThan(3_900);
    expect(findings).toHaveLength(1_000);
    expect(sweep.checked).toBeGreaterThanOrEqual(40_000);
    const written = await writers.stop();
    const note = `killed after ${killed.join(', ')} of ${sweep.checked} pairs`;
    await expectAtRest(database.pool, queue, { name: 'repair killed', written, note });
  }, 180_000);
});

function planted({ pairs }: Scene): readonly Pair[] {
  return pairs.slice(-PLANTED);
}

function others({ pairs }: Scene): readonly Pair[] {
  return pairs.slice(0, -PLANTED);
}

function thirds(pairs: readonly Pair[]): [readonly Pair[], readonly Pair[], readonly Pair[]] {
  const third = pairs.length / 3;
  return [pairs.slice(0, third), pairs.slice(third, 2 * third), pairs.slice(2 * third)];
}

function key({ personId, occasionId }: Pair): string {
  return `${personId}-${occasionId}`;
}

const KEYS = 'select * from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)';

function keysOf(pairs: readonly Pair[]): [string[], string[]] {
  return [pairs.map(({ personId }) => personId), pairs.map(({ occasionId }) => occasionId)];
}

function samePair(alias: string): string {
  return `(${alias}.person_id, ${alias}.occasion_id) = (k.person_id, k.occasion_id)`;
}

async function giveEach(
  { pool }: TestDatabase,
  pairs: readonly Pair[],
  amount: string,
): Promise<void> {
  await pool.query(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select (select min(id) from gifts), person_id, occasion_id, ${amount} from (${KEYS}) as k`,
    keysOf(pairs),
  );
}

async function untilStored(
  { pool }: TestDatabase,
  pairs: readonly Pair[],
  total: string,
): Promise<void> {
  await eventually(
    async () => {
      const { rows } = await pool.query(
        `select distinct b.budget_spent from person_occasions b join (${KEYS}) as k on ${samePair('b')}`,
        keysOf(pairs),
      );
      return rows.map((row) => row.budget_spent as string).join();
    },
    (stored) => stored === total,
  );
}

/** Runs a statement as a restore does, or a load with the triggers off. */
async function behindTriggers(
  { pool }: TestDatabase,
  statement: string,
  pairs: readonly Pair[],
): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query(`begin; set local session_replication_role = 'replica'`);
    await client.query(`with k as (${KEYS}) ${statement}`, keysOf(pairs));
    await client.query('commit');
  } finally {
    client.release();
  }
}

async function repair({ url }: TestDatabase): Promise<{ findings: KeptFinding[]; sweep: Sweep }> {
  const { code, out, err } = await runProgram(['repair', '--format', 'json'], {
    DATABASE_URL: url,
  });
  expect(code, err).toBe(0);
  const lines = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
  return { sweep: lines.pop() as Sweep, findings: lines as KeptFinding[] };
}

async function progress({ pool }: TestDatabase): Promise<{ checked: number }> {
  const { rows } = await pool.query(
    'select coalesce(max(checked), 0)::int as checked from budget_sweeps',
  );
  return rows[0];
}
