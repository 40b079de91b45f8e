import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { migrate } from '../../src/database.ts';
import { prepareQueue } from '../../src/queue.ts';
import { budgetsLeft } from '../../src/recalculation/fill.ts';
import { countMarks, eventually } from '../support/budgets.ts';
import { runProgram, startProgram } from '../support/run-program.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';

const PERSONS = 10_000;
const OCCASIONS = 4;
const BUDGETS = PERSONS * OCCASIONS;
const BEFORE_BUDGETS = 'Migration20261123000200_create_gifts_and_assignments';

/** An editor of budgets waits at most for one chunk: some 10 ms, more where processors are scarce. */
const PLANS_BLOCKED_MAX_MS = 1_000;

let database: TestDatabase;

beforeEach(async () => {
  database = await createEmptyDatabase();
  await database.orm.migrator.up({ to: BEFORE_BUDGETS });
  await database.pool.query(
    `insert into gifts (name) values ('gift');
     insert into persons (name) select 'p' from generate_series(1, ${PERSONS});
     insert into occasions (name) select 'o' from generate_series(1, ${OCCASIONS});
     insert into person_occasions (person_id, occasion_id)
     select p.id, o.id from persons p cross join occasions o;
     insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1, person_id, occasion_id, person_id % 100 + n
       from person_occasions cross join generate_series(1, 2) as n`,
  );
  await migrate(database);
  await prepareQueue({ backend: 'postgres', url: database.url });
  expect(await wrong()).toBe(BUDGETS);
});
afterEach(async () => {
  await database.close();
});

describe('after "up" on a database that has assignments, without any event', () => {
  it('"fill" makes every total right, goes on after SIGKILL, and holds up no writer', async () => {
    const writers = startSampledWriters();
    const killed = startProgram(['fill'], env());
    await untilLeft((left) => left < 0.8 * BUDGETS);
    killed.kill('SIGKILL');
    await killed.ended();
    const left = (await budgetsLeft(database.pool))!;
    expect(left).toBeGreaterThan(0);
    const again = await runProgram(['fill'], env());
    const seen = await writers.stop();
    expect(again).toMatchObject({ code: 0, err: '' });
    const [, here] = /^(\d+) budgets recalculated here, \d+ changed/.exec(again.out)!;
    console.log(
      `fill: ${BUDGETS} budgets, killed with ${left} left, ${here} done by the second one; ${describeSeen(seen)}`,
    );
    // The transaction that the kill met may have been committed all the same.
    expect(Number(here)).toBeLessThanOrEqual(left);
    expectNobodyHeldUp(seen);
    expect((await runProgram(['fill'], env())).out).toMatch(/^Nothing to fill/);
    const worker = startProgram(['start'], env());
    await eventually(
      async () => await countMarks(database.pool),
      (marks) => marks === 0,
    );
    worker.kill('SIGTERM');
    await worker.ended();
    expect(await wrong()).toBe(0);
  });

  it('a running worker does the same, and another one goes on after its SIGKILL', async () => {
    const writers = startSampledWriters();
    const killed = startProgram(['start'], env());
    await untilLeft((left) => left < 0.8 * BUDGETS);
    killed.kill('SIGKILL');
    await killed.ended();
    const left = (await budgetsLeft(database.pool))!;
    expect(left).toBeGreaterThan(0);
    const worker = startProgram(['start'], env());
    await worker.said(/"started"/);
    // Anew would be from the beginning: what is left never grows.
    expect(await budgetsLeft(database.pool)).toBeLessThanOrEqual(left);
    await untilLeft((now) => now === 0);
    const seen = await writers.stop();
    console.log(`fill by the worker: killed with ${left} left; ${describeSeen(seen)}`);
    expectNobodyHeldUp(seen);
    await eventually(
      async () => await countMarks(database.pool),
      (marks) => marks === 0,
    );
    worker.kill('SIGTERM');
    expect(await worker.ended()).toMatchObject({ code: 0 });
    expect(await wrong()).toBe(0);
  });

  it('several at once share it, an interrupted one says so, and "--again" does all anew', async () => {
    const interrupted = startProgram(['fill'], env());
    await untilLeft((left) => left < 0.9 * BUDGETS);
    interrupted.kill('SIGINT');
    expect(await interrupted.ended()).toMatchObject({
      code: 130,
      err: expect.stringMatching(/^interrupted: \d+ budgets recalculated here, .*run it again/),
    });
    const both = await Promise.all([1, 2].map(async () => await runProgram(['fill'], env())));
    for (const end of both) expect(end).toMatchObject({ code: 0, err: '' });
    expect(await wrong()).toBe(0);
    const again = await runProgram(['fill', '--again'], env());
    expect(again).toMatchObject({
      code: 0,
      out: `${BUDGETS} budgets recalculated here, 0 changed\n`,
    });
  });
});

function env(): NodeJS.ProcessEnv {
  return { DATABASE_URL: database.url, GIFT_BUDGETS_DASHBOARD_PORT: '0' };
}

async function untilLeft(holds: (left: number) => boolean): Promise<void> {
  await eventually(
    async () => (await budgetsLeft(database.pool)) ?? 0,
    (left) => holds(left),
    120_000,
  );
}

/** How many totals are not the sum of their assignments; a few seconds for so many. */
async function wrong(): Promise<number> {
  const { rows } = await database.pool.query<{ wrong: number }>(
    `select count(*)::int as wrong
       from person_occasions b
       left join (select person_id, occasion_id, sum(amount) as total
                    from gift_persons group by person_id, occasion_id) as s
      using (person_id, occasion_id)
      where b.budget_spent <> coalesce(s.total, 0)`,
  );
  return rows[0]!.wrong;
}

interface Seen {
  writes: number;
  slowestMs: number;
  /** How often a writer of assignments was seen to wait for us. */
  assignmentsBlocked: number;
  /** The longest that an editor of budgets was seen to wait for us. */
  plansBlockedMs: number;
}

/** Writes assignments and plans all along, and looks at who waits for whom. */
function startSampledWriters(): { stop(): Promise<Seen> } {
  const stopping = new AbortController();
  const { signal } = stopping;
  const seen: Seen = { writes: 0, slowestMs: 0, assignmentsBlocked: 0, plansBlockedMs: 0 };
  const write = async (name: string, ...statements: string[]): Promise<void> => {
    const client = await connect(name);
    for (let turn = 0; !signal.aborted; turn += 1) {
      const startedAt = performance.now();
      const person = 1 + Math.floor(Math.random() * PERSONS);
      await client.query(statements[turn % statements.length]!, [person]);
      seen.slowestMs = Math.max(seen.slowestMs, performance.now() - startedAt);
      seen.writes += 1;
      await sleep(5);
    }
    await client.end();
  };
  const sample = async (): Promise<void> => {
    const client = await connect('sampler');
    while (!signal.aborted) {
      const { rows } = await client.query<{ name: string; ms: number }>(
        `select w.application_name as name,
                extract(epoch from clock_timestamp() - w.query_start)::float8 * 1000 as ms
           from pg_stat_activity w
           join pg_stat_activity b on b.pid = any (pg_blocking_pids(w.pid))
          where w.application_name in ('assigner', 'planner')
            and b.application_name like 'gift-budgets%'`,
      );
      for (const { name, ms } of rows) {
        if (name === 'assigner') seen.assignmentsBlocked += 1;
        else seen.plansBlockedMs = Math.max(seen.plansBlockedMs, ms);
      }
      await sleep(10);
    }
    await client.end();
  };
  const running = [
    write(
      'assigner',
      'insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, $1, 1, 1)',
      'update gift_persons set amount = 3 where person_id = $1 and occasion_id = 2',
      'delete from gift_persons where person_id = $1 and occasion_id = 3',
    ),
    write('planner', 'update person_occasions set budget_amount = 100 where person_id = $1'),
    sample(),
  ];
  return {
    async stop() {
      stopping.abort();
      await Promise.all(running);
      return seen;
    },
  };
}

async function connect(name: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url, application_name: name });
  await client.connect();
  return client;
}

function expectNobodyHeldUp({ writes, assignmentsBlocked, plansBlockedMs }: Seen): void {
  expect(writes).toBeGreaterThan(50);
  expect(assignmentsBlocked).toBe(0);
  expect(plansBlockedMs).toBeLessThan(PLANS_BLOCKED_MAX_MS);
}

function describeSeen({ writes, slowestMs, plansBlockedMs }: Seen): string {
  return (
    `meanwhile ${writes} writes, the slowest ${slowestMs.toFixed(0)} ms; an editor of budgets waited for ` +
    `us up to ${plansBlockedMs.toFixed(0)} ms, a writer of assignments never`
  );
}
