import { setTimeout as sleep } from 'node:timers/promises';
import type { JobType } from 'bullmq';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import type { WebServer } from '../src/operations/web-server.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import type { Observer } from '../src/recalculation/observer.ts';
import { type RecalculationWorker, startWorker } from '../src/recalculation/worker.ts';
import { startBoard } from './support/board.ts';
import { eventually } from './support/budgets.ts';
import { createRawProducer, type RawProducer } from './support/raw-jobs.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

const STATES: JobType[] = ['waiting', 'active', 'completed', 'failed', 'delayed', 'prioritized'];

let database: TestDatabase;
let looking: OpenQueue;
let worker: RecalculationWorker | undefined;
let setAside: [id: string, reason: string][];
let queueErrors: Error[];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(() => {
  setAside = [];
  queueErrors = [];
});
afterEach(async () => {
  await worker?.stop();
  worker = undefined;
});

async function start(queue: QueueConnection, more: Observer = {}): Promise<void> {
  const observer: Observer = {
    ...more,
    unreadable: (...args) => setAside.push(args),
    queueError: (error) => queueErrors.push(error),
  };
  const sizes = { concurrency: 4, pairsMax: 500, drainTimeoutMs: 5_000 };
  worker = await startWorker({ pool: database.worker.pool, queue, ...sizes, observer });
}

async function look(queue: QueueConnection): Promise<void> {
  looking = openGiftEventsQueue(queue, () => {});
  await looking.connected();
}

async function addGood(): Promise<string> {
  const data = { version: 1, affected: [{ personId: 987654321, occasionId: 1 }] };
  return (await looking.queue.add('budget.recalculate', data)).id!;
}

async function untilIn(state: string, id: string): Promise<void> {
  await eventually(
    async () => await looking.queue.getJobState(id),
    (now) => now === state,
    10_000,
  );
}

describe.skipIf(inject('redisUrl') === null)('on Redis, a job', () => {
  let connection: QueueConnection & { backend: 'redis' };
  let raw: RawProducer;
  let dashboard: WebServer;
  let ids = 0;

  beforeAll(async () => {
    const prefix = `test-raw-${process.pid}`;
    connection = { backend: 'redis', url: inject('redisUrl')!, prefix };
    raw = createRawProducer(connection);
    await look(connection);
    dashboard = await startBoard(looking.queue);
  });
  afterAll(async () => {
    await dashboard.stop();
    await looking.close();
    raw.close();
  });

  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  const unreadable: readonly (readonly [kind: string, Record<string, string>, reason: string])[] = [
    ['data that are no JSON', { data: '{oops' }, 'data is not JSON: "{oops"'],
    ['a NUL in its data', { data: '\0' }, String.raw`data is not JSON: "\u0000"`],
    ['half a surrogate pair', { data: '{"a":"\ud83d' }, 'data is not JSON: "{'],
    [
      'data of 2 MB',
      { data: JSON.stringify('x'.repeat(2e6)) },
      'data has 2000002 characters, more',
    ],
    ['data nested too deep', { data: deep }, 'data is nested deeper than 500: "[[['],
    ['options that are no JSON', { opts: '{attempts:1}' }, 'opts is not a JSON object: "{attempts'],
    ['options that are null', { opts: 'null' }, 'opts is not a JSON object: "null"'],
    ['options that are a list', { opts: '[1]' }, 'opts is not a JSON object: "[1]"'],
    ['a progress that is no JSON', { progress: 'half' }, 'progress is not JSON: "half"'],
    ['a parent that is no JSON', { parent: 'me' }, 'parent is not a JSON object with id and'],
    ['a parent that is a number', { parent: '7' }, 'parent is not a JSON object with id and'],
    ['an empty parent', { parent: '' }, 'parent is not a JSON object with id and queueKey: ""'],
    ['a parent key without colon', { parentKey: 'x' }, 'parentKey is not a job key: "x"'],
    ['a start count that is none', { ats: 'many' }, 'ats is not a count: "many"'],
    ['a start count at its end', { ats: '9223372036854775807' }, 'ats is not a count: "92233720'],
    ['an attempt count below zero', { atm: '-1000000000' }, 'atm is not a count: "-1000000000"'],
    ['an attempt count that is none', { atm: '1.5' }, 'atm is not a count: "1.5"'],
    ['a stall count that is none', { stc: 'x' }, 'stc is not a count: "x"'],
    ['a name of 2 MB', { name: 'n'.repeat(2e6) }, 'name has 2000000 characters, more than 1000'],
    [
      'all of that',
      { data: '{', opts: '{', ats: 'x' },
      'data is not JSON: "{"; opts is not a JSON',
    ],
  ];

  it.each(unreadable)(
    'with %s is shown, and set aside once with its reason',
    async (_, fields, reason) => {
      const id = `raw:${(ids += 1)}`;
      await raw.add(id, fields);
      await expectShown('waiting', id, reason);
      await start(connection);
      const good = await addGood();
      await untilIn('failed', id);
      await untilIn('completed', good);
      expect(setAside).toEqual([[id, expect.stringContaining(reason)]]);
      expect(setAside[0]![1]).toMatch(/^unreadable job: /);
      const { logs } = await looking.queue.getJobLogs(id);
      expect(logs).toEqual(
        Object.entries(fields).map(([field, text]) =>
          `${field}: ${text.slice(0, 10_000)}`.toWellFormed(),
        ),
      );
      expect((await looking.queue.getJob(id))?.attemptsMade).toBe(1);
      await expectShown('failed', id, reason);
      expect(await looking.queue.getJobCountByTypes('active', 'waiting', 'delayed')).toBe(0);
      expect(queueErrors).toEqual([]);
    },
  );

  it.each(['string', 'list'])(
    'whose key holds a %s is set aside under an id of its own',
    async (type) => {
      const id = `key-${type}`;
      await (type === 'string'
        ? raw.redis.set(raw.key(id), '7')
        : raw.redis.lpush(raw.key(id), '7'));
      await raw.addId(id);
      const reason = `unreadable job: the key of "${id}" holds no hash`;
      await expectShown('waiting', id, reason);
      await start(connection);
      const good = await addGood();
      await untilIn('completed', good);
      await untilIn('failed', `unreadable-${id}`);
      expect(setAside).toEqual([[`unreadable-${id}`, reason]]);
      expect(await raw.redis.type(raw.key(id))).toBe(type);
      await expectShown('failed', `unreadable-${id}`, reason);
      expect(await looking.queue.getJobCountByTypes('active', 'waiting', 'delayed')).toBe(0);
    },
  );

  it('that is the next behind a good one does not disturb the end of that', async () => {
    const good = [await addGood()];
    for (let n = 0; n < 5; n += 1) {
      await raw.add(`between-${n}`, { ats: 'x' });
      good.push(await addGood());
    }
    await start(connection);
    for (const id of good) await untilIn('completed', id);
    for (let n = 0; n < 5; n += 1) await untilIn('failed', `between-${n}`);
    expect(setAside).toHaveLength(5);
    expect(queueErrors).toEqual([]);
  });

  it.each([
    ['no hash at all', null, 'got nothing'],
    ['no name', { name: null }, 'name: expected one of gift.assigned'],
    ['a NUL in its name', { name: '\0' }, String.raw`got "\u0000"`],
    ['no data', { data: null }, 'data.version: expected 1, got nothing'],
    ['data null', { data: 'null' }, 'data: expected an object, got null'],
    ['data that are a text', { data: '"text"' }, 'data: expected an object, got "text"'],
    ['data that are a list', { data: '[1,2]' }, 'data: expected an object, got a list of 2'],
    ['a lot of attempts', { data: '{}', opts: '{"attempts":1e9}' }, 'data.version: expected 1'],
    ['nothing to be kept', { data: '{}', opts: '{"removeOnFail":true}' }, 'data.version'],
    ['nonsense to be kept', { data: '{}', opts: '{"removeOnFail":null}' }, 'data.version'],
    ['a trace that is none', { data: '{}', opts: '{"tm":"{"}' }, 'data.version: expected 1'],
  ])('with %s fails like any malformed event', async (_, fields, reason) => {
    const id = `malformed-${(ids += 1)}`;
    await (fields === null ? raw.addId(id) : raw.add(id, fields));
    await start(connection);
    const good = await addGood();
    await untilIn('failed', id);
    await untilIn('completed', good);
    await expectShown('failed', id, reason);
    expect((await looking.queue.getJob(id))?.attemptsMade).toBe(1);
  });

  it.each([
    ['a scheduler that there is not', { rjk: 'nightly' }],
    ['a scheduler that never comes', { rjk: 'nightly', opts: '{"repeat":{"pattern":"never"}}' }],
    ['nonsense to be kept', { opts: '{"removeOnComplete":{"count":"x","age":{}}}' }],
    ['nonsense of a backoff', { opts: '{"backoff":{"type":"soon","delay":"x"}}' }],
    ['nonsense of numbers', { timestamp: 'x', delay: 'x', priority: 'x' }],
    ['fields of its own', { 'my field': 'x', __proto__x: '{' }],
  ])('with %s is served all the same', async (_, fields) => {
    const id = `odd-${(ids += 1)}`;
    await raw.add(id, fields);
    await start(connection);
    await untilIn('completed', id);
    await expectShown('completed', id);
  });

  it('that was set aside and is tried again by hand fails as a malformed event', async () => {
    await raw.add('again', { data: '{oops' });
    await start(connection);
    await untilIn('failed', 'again');
    await (await looking.queue.getJob('again'))!.retry();
    await eventually(
      async () => (await looking.queue.getJob('again'))!.failedReason,
      (reason) => reason?.includes('data.version: expected 1') === true,
    );
    expect((await looking.queue.getJob('again'))!.data).toEqual({ unreadable: '{oops' });
  });

  it.each(STATES)(
    'of any kind does not keep the list of %s jobs from being shown',
    async (state) => {
      expect(await pageOf(state)).toMatchObject({ status: 200 });
    },
  );

  /** As our page shows them: by BullMQ's calls, and over HTTP. */
  async function expectShown(state: JobType, id: string, reason?: string): Promise<void> {
    const jobs = await looking.queue.getJobs([state], 0, 99);
    const job = jobs.find((shown) => shown.id === id);
    expect(job).toBeDefined();
    if (reason !== undefined) expect(job!.failedReason).toContain(reason);
    const page = await pageOf(state);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain(JSON.stringify(id));
  }

  async function pageOf(state: JobType): Promise<Response> {
    const query = `activeQueue=gift-events&status=${state}&page=1&jobsPerPage=50`;
    return await fetch(`${dashboard.url}/queues/api/queues?${query}`);
  }
});

describeBackends('a malformed job', (open) => {
  let connection: QueueConnection;

  beforeAll(async () => {
    connection = await open(database);
    await look(connection);
  });
  afterAll(async () => {
    await looking.close();
  });

  it.each([
    ['asks for a billion attempts', { attempts: 1e9 }],
    ['asks not to be kept', { removeOnFail: true }],
    ['asks for nonsense to be kept', { removeOnFail: { count: 'x' } as never }],
    ['asks for nonsense of a backoff', { backoff: { type: 'soon' } }],
  ])('that %s fails once and visibly', async (_, options) => {
    await start(connection);
    const { id } = await looking.queue.add('gift.assigned', { version: 7 }, options);
    await untilIn('failed', id!);
    const job = await looking.queue.getJob(id!);
    expect(job!.failedReason).toContain('data.version: expected 1, got 7');
    expect(job!.attemptsMade).toBe(1);
  });

  it('that asks for a billion attempts is not tried in a hot loop, whatever makes it fail', async () => {
    let tries = 0;
    const event = (): void => {
      tries += 1;
      throw new Error('nobody foresaw this');
    };
    await start(connection, { event });
    const data = { version: 1, affected: [{ personId: 987654321, occasionId: 1 }] };
    const { id } = await looking.queue.add('gift.assigned', data, { attempts: 1e9 });
    await untilIn('delayed', id!);
    await sleep(1_000);
    // Told twice of each try: that it is done, and that this failed.
    expect(tries / 2).toBeLessThan(6);
    // It cannot be removed in the middle of a try.
    const remove = async () => await (await looking.queue.getJob(id!))?.remove().catch(() => {});
    const isThere = async () => (await remove(), (await looking.queue.getJob(id!)) !== undefined);
    await eventually(isThere, (is) => !is);
  });

  it('whose data are null or no object fails once and visibly', async () => {
    await start(connection);
    for (const data of [null, 'text', 7, [], [{}], true]) {
      const { id } = await looking.queue.add('gift.assigned', data);
      await untilIn('failed', id!);
    }
  });
});
