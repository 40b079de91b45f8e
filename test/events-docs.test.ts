import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { GIFT_EVENT_NAMES, parseGiftEvent } from '../src/events/contract.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { catchUpOnce } from '../src/recalculation/catch-up.ts';
import { startWorker } from '../src/recalculation/worker.ts';
import {
  assign,
  assignBehindTriggers,
  countMarks,
  eventually,
  seedPairs,
  wrongTotals,
} from './support/budgets.ts';
import { codeBlocks, mustTypeCheck, readDocument, runModule } from './support/documents.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const EVENTS = readDocument('docs/events.md');
const [MIKRO_ORM, SEND_AFTER, BULLMQ] = codeBlocks(EVENTS, 'ts') as [string, string, string];
const [PYTHON] = codeBlocks(EVENTS, 'python') as [string];
const [SQL] = codeBlocks(EVENTS, 'sql') as [string];

const MOVED = ['gift.moved 1-1', 'gift.moved 2-1'];

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});

/** Assignments of two persons, and stored totals that are right. */
beforeEach(async () => {
  const { pool } = database;
  await pool.query('truncate persons, occasions, gifts, gift_persons restart identity cascade');
  for (const pair of await seedPairs(pool, 2, 1)) await assign(pool, pair, '5.00');
  await catchUp();
});

async function catchUp(): Promise<void> {
  const options = { pool: database.worker.pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1 };
  while (await catchUpOnce({ ...options, graceMs: () => 0 }));
}

it('the TypeScript examples have no error of types', () => {
  mustTypeCheck([MIKRO_ORM, SEND_AFTER, BULLMQ]);
});

it('the SQL example sends nothing, and its totals become right by its marks', async () => {
  await database.pool.query(SQL);
  expect(await countMarks(database.pool)).toBeGreaterThan(0);
  expect(await wrongTotals(database.pool)).toHaveLength(2);
  await catchUp();
  expect(await wrongTotals(database.pool)).toEqual([]);
});

describe('the contract', () => {
  it('tells of every event there is', () => {
    const named = [...EVENTS.matchAll(/^\| `((?:gift|budget)\.\w+)` \|/gm)].map(([, name]) => name);
    expect(new Set(named)).toEqual(new Set(GIFT_EVENT_NAMES));
  });

  it('shows an event that is valid as every one of them', () => {
    const [data] = codeBlocks(EVENTS, 'json');
    for (const name of GIFT_EVENT_NAMES) {
      expect(() => parseGiftEvent(name, JSON.parse(data!))).not.toThrow();
    }
  });
});

describe.skipIf(inject('redisUrl') === null)('an upstream as the document shows it', () => {
  const url = `${inject('redisUrl')}/9`;
  const queue: QueueConnection = { backend: 'redis', url };
  let looking: OpenQueue;

  beforeAll(async () => {
    looking = openGiftEventsQueue(queue, () => {});
    await looking.connected();
  });
  afterEach(async () => {
    await looking.queue.obliterate();
  });
  afterAll(async () => {
    await looking.close();
  });

  const env = () => ({ DATABASE_URL: database.upstream.url, REDIS_URL: url });

  it.each([
    ['MikroORM and the subscriber', MIKRO_ORM, MOVED],
    ['TypeScript and sendAfter', SEND_AFTER, MOVED],
    ['BullMQ 6', BULLMQ, ['gift.repriced 1-1']],
    ['BullMQ 5', BULLMQ.replace("'bullmq'", "'bullmq5'"), ['gift.repriced 1-1']],
  ])('in %s', async (_, module, expected) => {
    await wrongBehindTriggers();
    expect(await runModule(module, env())).toBe('');
    expect(await namesAndPairs()).toEqual(expected);
    await serveAll();
    expect(await wrongTotals(database.pool)).toEqual([]);
  });

  const canPython = importsBullMQ();
  if (!canPython) console.warn('no Python with the package bullmq: its example is not run');

  it.skipIf(!canPython)('in Python', async () => {
    await wrongBehindTriggers();
    const options = { env: { ...process.env, ...env() }, timeout: 30_000 };
    await promisify(execFile)('python3', ['-c', PYTHON], options);
    expect(await namesAndPairs()).toEqual(['gift.moved 1-1 2-1']);
    await serveAll();
    expect(await wrongTotals(database.pool)).toEqual([]);
  });

  /** So that nothing but the event can make it right. */
  async function wrongBehindTriggers(): Promise<void> {
    const pair = { personId: '1', occasionId: '1' };
    await assignBehindTriggers(database.pool, pair, '7.00');
    expect(await wrongTotals(database.pool)).toHaveLength(1);
  }

  async function namesAndPairs(): Promise<string[]> {
    const jobs = await looking.queue.getJobs(['waiting'], 0, -1, true);
    return jobs
      .map(({ name, data }) => {
        const { affected } = parseGiftEvent(name, data).data;
        return [name, ...affected!.map((pair) => `${pair.personId}-${pair.occasionId}`)].join(' ');
      })
      .toSorted();
  }

  async function serveAll(): Promise<void> {
    const sizes = { concurrency: 4, pairsMax: 500, drainTimeoutMs: 1_000 };
    const worker = await startWorker({ pool: database.worker.pool, queue, ...sizes });
    try {
      await eventually(
        async () => await looking.queue.getJobCounts('waiting', 'active', 'failed'),
        ({ waiting, active }) => waiting === 0 && active === 0,
      );
      expect(await looking.queue.getJobCounts('failed')).toEqual({ failed: 0 });
    } finally {
      await worker.stop();
    }
  }
});

function importsBullMQ(): boolean {
  try {
    execFileSync('python3', ['-c', 'import bullmq'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
