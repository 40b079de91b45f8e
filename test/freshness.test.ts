import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { BudgetReader } from '../src/budgets/reader.ts';
import { BudgetFailedError, BudgetNotFreshError } from '../src/budgets/wait-until-fresh.ts';
import type { Queryable } from '../src/database.ts';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import { catchUpOnce, startCatchUp } from '../src/recalculation/catch-up.ts';
import { startWorker } from '../src/recalculation/worker.ts';
import { assign, eventually, markedPairs, seedPairs } from './support/budgets.ts';
import { within } from './support/outages.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let reader: BudgetReader;
let pair: Pair;
let other: Pair;
const running: { stop(): Promise<void> }[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  reader = new BudgetReader(database.reader.pool);
});

beforeEach(async () => {
  await database.pool.query('truncate persons, occasions, gifts restart identity cascade');
  await database.pool.query('truncate pending_recalculations, recalculation_failures');
  [pair, other] = (await seedPairs(database.pool, 2, 1)) as [Pair, Pair];
});

afterEach(async () => {
  for (const part of running.splice(0)) await part.stop();
});

afterAll(async () => {
  await database.close();
});

const catchUpOptions = () => ({
  pool: database.worker.pool,
  pairsMax: 500,
  pollMinMs: 2,
  pollMaxMs: 10,
  graceMs: () => 0,
});

function startCatchingUp(): void {
  running.push(startCatchUp(catchUpOptions()));
}

/** Holds the budget of the pair in a transaction of its own for the time of the work. */
async function whileHeld<T>(work: (holder: Queryable) => Promise<T>): Promise<T> {
  const holder = await database.pool.connect();
  await holder.query('begin');
  try {
    await holder.query(
      `update person_occasions set budget_notes = 'mine' where person_id = $1 and occasion_id = $2`,
      [pair.personId, pair.occasionId],
    );
    return await work(holder);
  } finally {
    await holder.query('commit');
    holder.release();
  }
}

const markEverything = (...key: number[]) =>
  database.pool.query(
    `insert into pending_recalculations (everything, person_id, occasion_id) values (true, $1, $2)`,
    [key[0] ?? null, key[1] ?? null],
  );

describe('the lag', () => {
  test('is 0 where nothing is marked', async () => {
    expect(await reader.lag()).toEqual({ seconds: 0, pendingPairs: 0, isAtLeast: false });
  });

  test('is the age of the oldest mark, and each pair counts once', async () => {
    await database.pool.query(
      `insert into pending_recalculations (person_id, occasion_id, marked_at)
       values (1, 1, clock_timestamp() - interval '90.5 s'), (1, 1, clock_timestamp()),
              (2, 1, clock_timestamp() - interval '3 s')`,
    );
    const { seconds, ...rest } = await reader.lag();
    expect(rest).toEqual({ pendingPairs: 2, isAtLeast: false });
    expect(seconds).toBeGreaterThanOrEqual(90.5);
    expect(seconds).toBeLessThan(95);
  });

  test('finds an old mark that became visible after younger ones', async () => {
    const client = await database.pool.connect();
    await client.query('begin');
    await assign(client, pair, '1.00');
    await client.query('select pg_sleep(0.3)');
    await assign(database.upstream.pool, other, '1.00');
    expect((await reader.lag()).seconds).toBeLessThan(0.3);
    await client.query('commit');
    client.release();
    expect((await reader.lag()).seconds).toBeGreaterThanOrEqual(0.3);
  });

  test('does not go below 0 where the clock was set back', async () => {
    await database.pool.query(
      `insert into pending_recalculations (person_id, occasion_id, marked_at)
       values (1, 1, clock_timestamp() + interval '1 h')`,
    );
    expect(await reader.lag()).toEqual({ seconds: 0, pendingPairs: 1, isAtLeast: false });
  });

  test('counts the budgets that a mark for everything stands for', async () => {
    await markEverything();
    expect(await reader.lag()).toMatchObject({ pendingPairs: 2, isAtLeast: false });
    await database.pool.query('delete from pending_recalculations');
    await markEverything(1, 1);
    expect(await reader.lag()).toMatchObject({ pendingPairs: 1, isAtLeast: false });
    await assign(database.upstream.pool, other, '1.00');
    expect(await reader.lag()).toMatchObject({ pendingPairs: 1, isAtLeast: false });
    await assign(database.upstream.pool, pair, '1.00');
    expect(await reader.lag()).toMatchObject({ pendingPairs: 2, isAtLeast: false });
    await markEverything();
    expect(await reader.lag()).toMatchObject({ pendingPairs: 2, isAtLeast: false });
  });

  test('is back at 0 once catch-up is through', async () => {
    await assign(database.upstream.pool, pair, '1.00');
    await catchUpOnce(catchUpOptions());
    expect(await reader.lag()).toEqual({ seconds: 0, pendingPairs: 0, isAtLeast: false });
  });

  test.each([
    [10_000, 10_000, false],
    [10_001, 10_000, true],
    [25_000, 10_000, true],
  ])('of %i marked pairs says %i, at least: %s', async (marks, pendingPairs, isAtLeast) => {
    await database.pool.query(
      `insert into pending_recalculations (person_id, occasion_id)
       select i, 1 from generate_series(1, $1::int) i`,
      [marks],
    );
    expect(await reader.lag()).toMatchObject({ pendingPairs, isAtLeast });
  });

  test('says at least where only the first marks were looked at, of however few pairs', async () => {
    await database.pool.query(
      `insert into pending_recalculations (person_id, occasion_id)
       select 1 + i % 3, 1 from generate_series(1, 20000) i`,
    );
    expect(await reader.lag()).toMatchObject({ pendingPairs: 3, isAtLeast: true });
  });
});

describe('waiting until a budget is fresh', () => {
  test('returns at once where nothing is pending, after a single look', async () => {
    const { recording, sent } = recordStatements();
    const budget = await new BudgetReader(recording).waitUntilFresh(pair, 0);
    expect(budget).toEqual(await reader.budget(pair));
    expect(sent).toHaveLength(1);
  });

  test('is null where there is no such budget, also where a mark is left of it', async () => {
    const gone = { personId: 77, occasionId: 88 };
    await database.pool.query(
      'insert into pending_recalculations (person_id, occasion_id) values (77, 88)',
    );
    expect(await reader.waitUntilFresh(gone, 60_000)).toBeNull();
  });

  test('sees what was written before it, each time', async () => {
    startCatchingUp();
    let right = 0;
    for (let amount = 1; amount <= 20; amount += 1) {
      right += amount;
      await assign(database.upstream.pool, pair, `${amount}.00`);
      const budget = await reader.waitUntilFresh(pair, 20_000);
      expect(budget!.spent).toBe(`${right}.00`);
    }
  });

  test('waits for a mark for everything that stands for it, and for no other', async () => {
    await markEverything(1, 1);
    expect(await reader.waitUntilFresh(pair, 0)).toMatchObject({ spent: '0.00' });
    await expect(reader.waitUntilFresh(other, 0)).rejects.toThrow(BudgetNotFreshError);
    startCatchingUp();
    expect(await reader.waitUntilFresh(other, 20_000)).toMatchObject({ spent: '0.00' });
  });

  test('a mark that a walk over everything leaves to a busy pair is waited for too', async () => {
    await database.pool.query(`update person_occasions set budget_spent = 5`);
    await database.pool.query('delete from pending_recalculations');
    await markEverything();
    const { recording, sent } = recordStatements();
    const waiting = await whileHeld(async () => {
      const begun = new BudgetReader(recording).waitUntilFresh(pair, 20_000);
      const looked = (than: number) =>
        eventually(
          async () => sent.length,
          (looks) => looks > than,
        );
      await looked(0);
      await catchUpOnce(catchUpOptions());
      expect(await markedPairs(database.pool)).toEqual(['1-1']);
      await looked(sent.length + 2);
      return { begun };
    });
    startCatchingUp();
    expect(await waiting.begun).toMatchObject({ spent: '0.00' });
  });

  test('a pair listed as failed, and changed since, is waited for until it is mended', async () => {
    await assign(database.upstream.pool, pair, '99999999.99');
    await assign(database.upstream.pool, pair, '1.00');
    await catchUpOnce(catchUpOptions());
    await assign(database.upstream.pool, pair, '-9.00');
    const waiting = reader.waitUntilFresh(pair, 20_000);
    startCatchingUp();
    expect(await waiting).toMatchObject({ spent: '99999991.99' });
  });

  test('waits for no change of another pair', async () => {
    await assign(database.upstream.pool, other, '1.00');
    expect(await reader.waitUntilFresh(pair, 0)).toMatchObject({ spent: '0.00' });
  });

  test('looks less often the longer it lasts', async () => {
    await assign(database.upstream.pool, pair, '1.00');
    const { recording, sent } = recordStatements();
    await expect(new BudgetReader(recording).waitUntilFresh(pair, 600)).rejects.toThrow(
      BudgetNotFreshError,
    );
    // At 0, 5, 15, 35, 75, 155, 255, 355, 455, 555 and 600 ms, if the machine keeps up.
    expect(sent.length).toBeGreaterThan(3);
    expect(sent.length).toBeLessThanOrEqual(12);
  });

  test('a row that somebody holds: says so at the time-out, and returns once it is free', async () => {
    startCatchingUp();
    const error = await whileHeld(async () => {
      await assign(database.upstream.pool, pair, '7.00');
      return await reader.waitUntilFresh(pair, 150).catch((thrown: unknown) => thrown);
    });
    expect(error).toBeInstanceOf(BudgetNotFreshError);
    const {
      code,
      message,
      pair: named,
      waitedMs,
      oldestMarkSeconds,
    } = error as BudgetNotFreshError;
    expect([code, named]).toEqual(['BUDGET_NOT_FRESH', pair]);
    expect(waitedMs).toBeGreaterThanOrEqual(150);
    expect(oldestMarkSeconds).toBeGreaterThanOrEqual(0.15);
    expect(message).toBe(
      `the budget of person 1 for occasion 1 is not fresh after ${Math.round(waitedMs)} ms: ` +
        `its oldest mark is ${oldestMarkSeconds!.toFixed(3)} s old`,
    );
    expect(await reader.waitUntilFresh(pair, 20_000)).toMatchObject({
      spent: '7.00',
      notes: 'mine',
    });
  });

  test('the age at the time-out is that of the oldest mark, for everything or not', async () => {
    await assign(database.upstream.pool, other, '1.00');
    await database.pool.query(
      `insert into pending_recalculations (everything, marked_at)
       values (true, clock_timestamp() - interval '500 s')`,
    );
    await expect(reader.waitUntilFresh(other, 0)).rejects.toMatchObject({
      oldestMarkSeconds: expect.closeTo(501, -1),
    });
  });

  test('a total that cannot be stored: the reason, and not the wrong total', async () => {
    startCatchingUp();
    await assign(database.upstream.pool, pair, '99999999.99');
    await assign(database.upstream.pool, pair, '0.01');
    const reason = 'the sum 100000000.00 does not fit budget_spent, a numeric(10,2)';
    const error = await reader.waitUntilFresh(pair, 20_000).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BudgetFailedError);
    expect(error).toMatchObject({
      code: 'BUDGET_FAILED',
      pair,
      reason,
      message: `the total of the budget of person 1 for occasion 1 cannot be stored: ${reason}`,
    });
    await assign(database.upstream.pool, pair, '-5.00');
    expect(await reader.waitUntilFresh(pair, 20_000)).toMatchObject({ spent: '99999995.00' });
  });

  test('an abort ends it at once, with its reason', async () => {
    await assign(database.upstream.pool, pair, '1.00');
    const aborting = new AbortController();
    const waiting = reader.waitUntilFresh(pair, 60_000, { signal: aborting.signal });
    setTimeout(() => aborting.abort(new Error('enough')), 30);
    await expect(within(5_000, waiting)).rejects.toThrow('enough');
    await expect(reader.waitUntilFresh(pair, 0, { signal: aborting.signal })).rejects.toThrow(
      'enough',
    );
  });

  test('many abortable waits leave no listener behind', async () => {
    const { signal } = new AbortController();
    let warnings = 0;
    const count = (): void => void (warnings += 1);
    process.on('warning', count);
    for (let wait = 0; wait < 50; wait += 1) await reader.waitUntilFresh(pair, 0, { signal });
    await new Promise(setImmediate);
    process.off('warning', count);
    expect(warnings).toBe(0);
  });

  test('a database that does not answer: a time-out all the same', async () => {
    const silent = new BudgetReader({ query: () => new Promise(() => {}) });
    await expect(within(10_000, silent.waitUntilFresh(pair, 20))).rejects.toMatchObject({
      code: 'BUDGET_NOT_FRESH',
      oldestMarkSeconds: null,
      message: expect.stringMatching(
        /^the budget of person 1 for occasion 1 is not fresh after \d+ ms: the database did not answer$/,
      ),
    });
    const aborting = new AbortController();
    const waiting = silent.waitUntilFresh(pair, 60_000, { signal: aborting.signal });
    aborting.abort(new Error('enough'));
    await expect(within(5_000, waiting)).rejects.toThrow('enough');
  });

  test('an error of the database is the error', async () => {
    const broken = new BudgetReader({ query: () => Promise.reject(new Error('no such table')) });
    await expect(broken.waitUntilFresh(pair, 1_000)).rejects.toThrow('no such table');
  });

  test.each<[unknown, string]>([
    [-1, '-1'],
    [1.5, '1.5'],
    [3_600_001, '3600001'],
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    ['100', '"100"'],
    [undefined, 'undefined'],
  ])('a time-out of %s is refused before anything is asked', async (timeoutMs, shown) => {
    const { recording, sent } = recordStatements();
    const waiting = new BudgetReader(recording).waitUntilFresh(pair, timeoutMs as number);
    await expect(waiting).rejects.toMatchObject({
      code: 'BUDGET_QUERY_INVALID',
      message: `timeoutMs: expected a whole number of milliseconds from 0 to 3600000, got ${shown}`,
    });
    expect(sent).toEqual([]);
  });

  test('an id that is none is refused', async () => {
    await expect(reader.waitUntilFresh({ personId: 'x', occasionId: 1 }, 10)).rejects.toMatchObject(
      { code: 'BUDGET_QUERY_INVALID' },
    );
  });
});

describeBackends('waiting for what a gift event brings', (open) => {
  test('sees what was written before it, with a worker alone', async () => {
    const queue = await open(database);
    const worker = await startWorker({
      pool: database.worker.pool,
      queue,
      concurrency: 10,
      pairsMax: 500,
      drainTimeoutMs: 5_000,
    });
    running.push(worker);
    const events = new GiftEventClient(queue);
    try {
      for (const right of ['2.50', '5.00', '7.50']) {
        await assign(database.upstream.pool, pair, '2.50');
        await events.giftAssigned([pair]);
        expect(await reader.waitUntilFresh(pair, 20_000)).toMatchObject({ spent: right });
      }
    } finally {
      await events.close();
    }
  });
});

test('while others keep writing it ends, with all that was written before the call', async () => {
  startCatchingUp();
  startCatchingUp();
  let written = 0;
  const stopping = new AbortController();
  const write = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await assign(database.upstream.pool, pair, '0.01');
      written += 1;
    }
  };
  const writing = Promise.all([write(), write(), write()]);
  const inCents = (money: string): number => Number(money.replace('.', ''));
  try {
    for (let turn = 0; turn < 50; turn += 1) {
      const before = written;
      const budget = await reader.waitUntilFresh(pair, 20_000);
      expect(inCents(budget!.spent)).toBeGreaterThanOrEqual(before);
    }
  } finally {
    stopping.abort();
    await writing;
  }
  const budget = await reader.waitUntilFresh(pair, 20_000);
  expect(inCents(budget!.spent)).toBe(written);
});

function recordStatements() {
  const sent: string[] = [];
  const recording: Queryable = {
    query: async (text, values) => {
      sent.push(text);
      return await database.reader.pool.query(text, values);
    },
  };
  return { recording, sent };
}
