import { join } from 'node:path';
import type { Job } from 'bullmq';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import * as exported from '../src/index.ts';
import { parseGiftEvent } from '../src/events/contract.ts';
import { openGiftEventsQueue, type QueueConnection } from '../src/queue.ts';
import { startWorker } from '../src/recalculation/worker.ts';
import { assign, eventually, seedPairs } from './support/budgets.ts';
import { codeBlocks, mustTypeCheck, readDocument, ROOT, runModule } from './support/documents.ts';
import { runProgram } from './support/run-program.ts';
import { createEmptyDatabase, createTestDatabase, type TestDatabase } from './support/servers.ts';

const README = readDocument('README.md');
const MODULES = codeBlocks(README, 'ts');

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
  const [pair] = await seedPairs(database.pool, 1, 1);
  await database.pool.query(`update person_occasions set budget_amount = 100`);
  await assign(database.upstream.pool, pair!, '25.00');
});

afterAll(async () => {
  await database.close();
});

describe('the modules of the README', () => {
  test('are there', () => {
    expect(MODULES).toMatchObject([
      expect.stringContaining('new GiftEventClient('),
      expect.stringContaining('new BudgetReader('),
    ]);
  });

  test('import only what is exported', () => {
    for (const module of MODULES) {
      const [, names] = /import \{ (.+) \} from 'gift-budgets'/.exec(module)!;
      for (const name of names!.split(', ')) expect(Object.keys(exported)).toContain(name);
    }
  });

  test('have no error of types', () => {
    mustTypeCheck(MODULES);
  });

  test.skipIf(inject('redisUrl') === null)('run', async () => {
    const results: string[] = [];
    for (const module of MODULES) {
      const env = { DATABASE_URL: database.reader.url, REDIS_URL: redisUrl() };
      results.push(await runModule(module, env));
    }
    expect(results).toEqual(['', '0.00 100.00 0.00 false\n']);
    const open = openGiftEventsQueue({ backend: 'redis', url: redisUrl() }, () => {});
    await open.connected();
    const jobs = await open.queue.getJobs(['waiting'], 0, -1, true);
    await open.queue.obliterate();
    await open.close();
    expect(jobs.map(({ name }) => name)).toEqual(['gift.assigned', 'gift.moved']);
  });
});

describe('the events of the README', () => {
  const events = jobTable();

  test('are every event that there is', () => {
    expect(events.map(({ name }) => name).toSorted()).toEqual(
      [...exported.GIFT_EVENT_NAMES].toSorted(),
    );
  });

  test.each(events)('$name is understood', ({ name, data }) => {
    expect(() => parseGiftEvent(name, JSON.parse(data))).not.toThrow();
  });

  test.skipIf(inject('redisUrl') === null)('are served when added without options', async () => {
    const queue: QueueConnection = { backend: 'redis', url: redisUrl() };
    const open = openGiftEventsQueue(queue, () => {});
    await open.connected();
    const jobs: Job[] = [];
    for (const { name, data } of events) jobs.push(await open.queue.add(name, JSON.parse(data)));
    const worker = await startWorker({
      pool: database.worker.pool,
      queue,
      concurrency: 10,
      pairsMax: 500,
      drainTimeoutMs: 1_000,
    });
    await eventually(
      async () => await Promise.all(jobs.map(async (job) => await job.getState())),
      (states) => states.every((state) => state === 'completed'),
    );
    await worker.stop();
    await open.queue.obliterate();
    await open.close();
  });
});

describe('the commands of the README', () => {
  test('are those that there are', async () => {
    const { out } = await runProgram(['--help']);
    const named = [...README.matchAll(/npm run gift-budgets (?:-- )?([a-z]+)/g)].map(
      ([, name]) => name!,
    );
    for (const name of named) expect(out).toMatch(new RegExp(`^  ${name}\\b`, 'm'));
    for (const name of ['migrate', 'start', 'import', 'enqueue', 'show', 'verify']) {
      expect(named).toContain(name);
    }
  });

  test('lead from an empty database to a verified one', async () => {
    const empty = await createEmptyDatabase();
    const gifts = join(ROOT, 'src/demo/family.csv');
    const say = async (...args: string[]) => {
      const { code, out, err } = await runProgram(args, { DATABASE_URL: empty.url });
      expect({ code, err }).toEqual({ code: 0, err: '' });
      return out;
    };
    try {
      expect(await say('migrate')).toContain('The database is up to date.');
      expect(await say('migrate')).toBe('Nothing to apply: the database is up to date.\n');
      expect(await say('import', gifts)).toContain('imported 61 assignments of 46 budgets');
      expect(await say('enqueue', 'budget.recalculate', '--pair', '1:1')).toBe('added 1 job\n');
      expect(await say('show', '--all', '--format', 'csv')).toMatch(
        /^person,occasion,budget,spent/,
      );
      expect(await say('verify')).toMatch(/46 budgets checked, 0 wrong, \d+ pending\n$/);
    } finally {
      await empty.close();
    }
  });
});

/** The rows of the table of events; `[…]` stands for a list of pairs. */
function jobTable(): { name: string; data: string }[] {
  const rows = README.matchAll(/^\| `((?:gift|budget)\.\w+)` +\| `(\{.*?\})` +\|/gm);
  return [...rows].map(([, name, data]) => ({
    name: name!,
    data: data!.replace('[…]', '[{"personId":1,"occasionId":1}]'),
  }));
}

/** A database of Redis that no other test uses: the README's programs use the usual prefix. */
function redisUrl(): string {
  return `${inject('redisUrl')}/8`;
}
