import { Queue as Queue5 } from 'bullmq5';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { GIFT_EVENTS_QUEUE, type Pair } from '../src/events/contract.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { type RecalculationWorker, startWorker } from '../src/recalculation/worker.ts';
import { assignBehindTriggers, eventually, seedPairs, wrongTotals } from './support/budgets.ts';
import { openPort, PACKERS, type Port, type PortJob } from './support/ports.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let connection: QueueConnection;
let looking: OpenQueue;
let worker: RecalculationWorker;
let pair: Pair;

beforeAll(async () => {
  database = await createTestDatabase();
  [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
});
afterAll(async () => {
  await database.close();
});

/** A total that nothing but the event of its pair makes right. */
beforeEach(async () => {
  await assignBehindTriggers(database.pool, pair, '7.00');
});

async function open(queue: QueueConnection): Promise<void> {
  connection = queue;
  looking = openGiftEventsQueue(queue, () => {});
  await looking.connected();
  const sizes = { concurrency: 4, pairsMax: 500, drainTimeoutMs: 5_000 };
  worker = await startWorker({ pool: database.worker.pool, queue, ...sizes });
}

async function close(): Promise<void> {
  await worker.stop();
  await looking.close();
}

async function untilIn(state: string, id: string): Promise<void> {
  await eventually(
    async () => await looking.queue.getJobState(id),
    (now) => now === state,
    10_000,
  );
}

async function expectServed(id: string): Promise<void> {
  await untilIn('completed', id);
  expect(await wrongTotals(database.pool)).toEqual([]);
}

async function expectRefused(id: string, reason: string): Promise<void> {
  await untilIn('failed', id);
  const job = await looking.queue.getJob(id);
  expect(job!.failedReason).toContain(reason);
  expect(job!.attemptsMade).toBe(1);
}

/** The pair as JSON, in each way that a language may write it. */
const data = (text = '{"personId":P,"occasionId":O}', more = ''): string =>
  `{"version":1,"affected":[${text}]${more}}`
    .replaceAll('P', pair.personId)
    .replaceAll('O', pair.occasionId);

describeBackends('a port of BullMQ', (openQueue) => {
  let port: Port;

  beforeAll(async () => {
    await open(await openQueue(database));
    port = openPort(connection);
  });
  afterAll(async () => {
    await port.close();
    await close();
  });

  const name = 'gift.assigned';
  const texts: readonly (readonly [how: string, () => string])[] = [
    ['compact', () => data()],
    ['spaced out', () => data().replaceAll(':', ': ').replaceAll(',', ' ,\r\n\t')],
    ['with ids as texts', () => data('{"personId":"P","occasionId":"O"}')],
    ['with escaped letters', () => data().replace('version', String.raw`\u0076ersion`)],
    ['with numbers as floats', () => data('{"personId":P.0,"occasionId":O.0e0}')],
    ['with a version as a float', () => data().replace('"version":1', '"version":1.0')],
    [
      'with nulls for what is left out',
      () => data(undefined, ',"giftId":null,"occurredAt":null,"source":null'),
    ],
    [
      'with fields of its own, everywhere',
      () => data('{"personId":P,"occasionId":O,"x":[{}]}', ',"y":{"z":1.5}'),
    ],
    ['with a key written twice', () => data(undefined, ',"source":"a","source":"b"')],
    ['with letters beyond ASCII', () => data(undefined, ',"source":"Geschenkübersicht 🎁"')],
    ['by a gift alone', () => '{"version":1,"giftId":"1"}'],
  ];

  it.each(texts)('that writes its data %s is served', async (_, write) => {
    await database.pool.query('update gifts set id = 1 where id <> 1');
    await expectServed(await port.add({ name, data: write() }));
  });

  const options: readonly (readonly [how: string, Omit<PortJob, 'name' | 'data'>])[] = [
    ['none', {}],
    ['those of Python', { options: { attempts: 0, delay: 0, backoff: null } }],
    ['those of PHP', { options: { delay: 0, attempts: 1 }, id: 'b7e23ec2-9af0-4f5d-a1b4-3f2c' }],
    ['the short names', { options: { attempts: 3, kl: 10, fpof: false, de: null } }],
    ['a list for none', { options: [] as never }],
    ['options nobody knows', { options: { ttl: '5m', retries: { max: 3 }, queue: 'default' } }],
    ['a time with a fraction', { timestamp: Date.now() + 0.75 }],
    ['a time in seconds', { timestamp: Math.round(Date.now() / 1_000) }],
    ['a time of 0', { timestamp: 0 }],
    ['the removal of what is done', { options: { removeOnComplete: true, removeOnFail: true } }],
  ];

  it.each(options)('with the options: %s, is served', async (_, more) => {
    await expectServed(await port.add({ name, data: data(), ...more }));
  });

  const refused: readonly (readonly [how: string, () => string, reason: string])[] = [
    ['a version as a text', () => data().replace('1', '"1"'), 'data.version: expected 1, got "1"'],
    [
      'an id that its number rounds',
      () => data('{"personId":9007199254740993,"occasionId":O}'),
      'as a string, because a number does not hold it',
    ],
    [
      'an id that is a text of a float',
      () => data('{"personId":"1.0","occasionId":O}'),
      'expected an id',
    ],
    ['a pair as a list', () => data('[P,O]'), 'expected a pair: an object with personId'],
    [
      'names in snake_case',
      () => data('{"person_id":P,"occasion_id":O}'),
      'data.affected[0].personId: expected an id',
    ],
    [
      'data that are JSON within a text',
      () => JSON.stringify(data()),
      'data: expected an object, got "{',
    ],
    ['an empty list for an empty object', () => '[]', 'data: expected an object, got []'],
  ];

  it.each(refused)('that writes %s is told so on its job', async (_, write, reason) => {
    await expectRefused(await port.add({ name, data: write() }), reason);
  });

  it.each(['gift.Assigned', 'GiftAssigned', ''])('that calls it %j is told so', async (other) => {
    await expectRefused(await port.add({ name: other, data: data() }), 'name: expected one of');
  });
});

describe.skipIf(inject('redisUrl') === null)('on Redis', () => {
  beforeAll(async () => {
    const prefix = `test-foreign-${process.pid}`;
    await open({ backend: 'redis', url: inject('redisUrl')!, prefix });
  });
  afterAll(async () => {
    await close();
  });

  it.each(Object.entries(PACKERS))('a port that packs %s is served', async (_, pack) => {
    const port = openPort(connection, pack);
    try {
      const options = { attempts: 3, backoff: { type: 'exponential', delay: 500 }, kl: 7 };
      await expectServed(await port.add({ name: 'gift.repriced', data: data(), options }));
    } finally {
      await port.close();
    }
  });

  describe('a producer on BullMQ 5', () => {
    let redis: Redis;
    let queue: Queue5;

    beforeAll(async () => {
      const { url, prefix } = connection as QueueConnection & { backend: 'redis'; prefix: string };
      redis = new Redis(url, { maxRetriesPerRequest: null });
      queue = new Queue5(GIFT_EVENTS_QUEUE, { connection: redis, prefix });
      await queue.waitUntilReady();
    });
    afterEach(async () => {
      await looking.queue.resume();
    });
    afterAll(async () => {
      await queue.close();
      redis.disconnect();
    });

    const event = () => JSON.parse(data()) as object;

    it.each([
      ['none', {}],
      ['a delay', { delay: 50 }],
      ['a priority', { priority: 5 }],
      ['the last first', { lifo: true }],
      ['a jobId', { jobId: 'mine' }],
      ['attempts and a backoff', { attempts: 5, backoff: 1_000 }],
      ['a simple deduplication', { deduplication: { id: 'simple' } }],
      ['a throttle', { deduplication: { id: 'throttle', ttl: 1_000 } }],
      [
        'a debounce',
        { deduplication: { id: 'b', ttl: 50, extend: true, replace: true }, delay: 50 },
      ],
      ['no trace of it when done', { removeOnComplete: true, removeOnFail: true }],
    ])('with the options: %s, is served', async (_, options) => {
      const { id } = await queue.add('gift.moved', event(), options);
      await expectServed(id!);
    });

    it('that adds many at once is served', async () => {
      const jobs = Array.from({ length: 50 }, () => ({ name: 'gift.moved', data: event() }));
      for (const { id } of await queue.addBulk(jobs)) await untilIn('completed', id!);
      expect(await wrongTotals(database.pool)).toEqual([]);
    });

    it('that adds while the queue is paused is served once it is not any more', async () => {
      await looking.queue.pause();
      const { id } = await queue.add('gift.moved', event());
      const [other] = await queue.addBulk([{ name: 'gift.moved', data: event() }]);
      await looking.queue.resume();
      await expectServed(id!);
      await expectServed(other!.id!);
    });

    it('that sends no event is told so, as anyone is', async () => {
      const { id } = await queue.add('gift.moved', { version: 1 });
      await expectRefused(id!, 'data.affected: expected a list of 1 to 500 pairs, got nothing');
    });
  });
});
