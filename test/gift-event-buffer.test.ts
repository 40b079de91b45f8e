import { once } from 'node:events';
import { MikroORM } from '@mikro-orm/postgresql';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { mikroOrmOptions } from '../src/database.ts';
import { GiftPerson } from '../src/entities/assignments.ts';
import { GiftEventBuffer, type GiftEventBufferOptions } from '../src/events/buffer.ts';
import type { PairInput } from '../src/events/client.ts';
import { GiftEventSubscriber } from '../src/events/mikro-orm-subscriber.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { countMarks, eventually, seedPairs } from './support/budgets.ts';
import { emptyQueue } from './support/empty-queue.ts';
import { createOwnRedis, freePort, isOnPath, type OwnRedis, within } from './support/outages.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

const pairs = (count: number, first = 1): PairInput[] =>
  Array.from({ length: count }, (_, n) => ({ personId: first + n, occasionId: 1 }));

const NOTHING = { waiting: 0, sent: 0, failed: 0, dropped: 0, unnamed: 0 };

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});

describeBackends('the buffer', (open) => {
  let connection: QueueConnection;
  let looking: OpenQueue;
  let events: GiftEventBuffer;

  beforeAll(async () => {
    connection = await open(database);
    looking = openGiftEventsQueue(connection, () => {});
    await looking.connected();
  });
  afterAll(async () => {
    await looking.close();
  });
  beforeEach(async () => {
    await emptyQueue(looking.queue, connection);
    events = new GiftEventBuffer(connection);
  });
  afterEach(async () => {
    await events.close();
  });

  async function sent(): Promise<{ name: string; data: unknown }[]> {
    await events.close();
    const jobs = await looking.queue.getJobs(['waiting'], 0, -1, true);
    return jobs.map(({ name, data }) => ({ name, data: data as unknown }));
  }
  const jobOf = (name: string, pair: PairInput) => ({
    name,
    data: { version: 1, affected: [pair] },
  });
  const [one, two] = pairs(2) as [PairInput, PairInput];

  it('sends what a transaction names after it is done, and answers without waiting for that', async () => {
    const result = await events.sendAfter(async (changed) => {
      changed.giftAssigned([one]);
      changed.giftMoved([two], [{ personId: '9223372036854775807', occasionId: 3n }]);
      expect(events.counts()).toEqual(NOTHING);
      return 'done';
    });
    expect(result).toBe('done');
    expect(events.counts()).toEqual({ ...NOTHING, waiting: 3 });
    expect(await sent()).toEqual([
      jobOf('gift.assigned', one),
      jobOf('gift.moved', two),
      jobOf('gift.moved', { personId: '9223372036854775807', occasionId: 3 }),
    ]);
    expect(events.counts()).toEqual({ ...NOTHING, sent: 3 });
  });

  it('sends nothing of a transaction that throws, and throws the same', async () => {
    const failed = events.sendAfter(async (changed) => {
      changed.giftUnassigned([one]);
      throw new Error('rolled back');
    });
    await expect(failed).rejects.toThrow('rolled back');
    expect(await sent()).toEqual([]);
    expect(events.counts()).toEqual(NOTHING);
  });

  it('sends many transactions in few round trips, each pair once', async () => {
    for (let n = 0; n < 3_000; n += 1) {
      await events.sendAfter(async (changed) => changed.giftRepriced(pairs(2, 1 + (n % 50))));
    }
    expect(await sent()).toHaveLength(51);
    expect(events.counts().sent).toBeLessThan(3_000);
  });

  it('sends more than fits one round trip', async () => {
    await events.sendAfter(async (changed) => changed.giftAssigned(pairs(701)));
    expect(await sent()).toEqual(pairs(701).map((pair) => jobOf('gift.assigned', pair)));
  });

  it('counts what names no pair, and sends the rest', async () => {
    await events.sendAfter(async (changed) => {
      const wrong = [0, -1, 1.5, 2 ** 53, 'Ada', '', '007', null, undefined, {}, 2n ** 63n];
      for (const id of wrong) changed.giftAssigned([{ personId: id as number, occasionId: 1 }]);
      changed.giftAssigned([one]);
    });
    expect(await sent()).toEqual([jobOf('gift.assigned', one)]);
    expect(events.counts()).toEqual({ ...NOTHING, sent: 1, unnamed: 11 });
  });

  it('drops and counts what comes beyond its bound, in one transaction and in all', async () => {
    const small = new GiftEventBuffer(connection, { pairsMax: 10 });
    await small.sendAfter(async (changed) => changed.giftAssigned(pairs(12)));
    await small.sendAfter(async (changed) => changed.giftAssigned(pairs(4, 9)));
    expect(small.counts()).toEqual({ ...NOTHING, waiting: 10, dropped: 2 + 2 });
    await small.close();
    expect(small.counts()).toEqual({ ...NOTHING, sent: 10, dropped: 4 });
  });

  it('drops what comes after its close', async () => {
    await events.close();
    await events.sendAfter(async (changed) => changed.giftAssigned([one]));
    expect(events.counts()).toEqual({ ...NOTHING, dropped: 1 });
    expect(await sent()).toEqual([]);
  });
});

describe.skipIf(!isOnPath('redis-server'))('while Redis is away', () => {
  let redis: OwnRedis;
  let events: GiftEventBuffer;
  const errors: Error[] = [];

  beforeEach(async () => {
    redis = createOwnRedis(await freePort());
    errors.length = 0;
  });
  afterEach(async () => {
    redis.thaw();
    await within(20_000, events.close());
    await redis.stop();
  });

  function openEvents(options: GiftEventBufferOptions = {}): void {
    events = new GiftEventBuffer(redis.connection, {
      onError: (error) => errors.push(error),
      ...options,
    });
  }

  /** Sends until one arrives, each after the end of the one before: none is on its way afterwards. */
  async function sendOne(): Promise<void> {
    for (;;) {
      const { sent, failed } = events.counts();
      await events.sendAfter(async (changed) => changed.giftAssigned(pairs(1)));
      const now = await eventually(
        async () => events.counts(),
        (counts) => counts.sent + counts.failed > sent + failed,
      );
      if (now.sent > sent) return;
    }
  }

  it.each(['never there', 'stopped', 'frozen'])(
    'with Redis %s, commits through MikroORM take no longer, and each leaves its mark',
    async (how) => {
      openEvents();
      if (how !== 'never there') {
        await redis.start();
        await sendOne();
      }
      const options = mikroOrmOptions(database.upstream.url);
      const plain = await MikroORM.init(options);
      const subscribers = [new GiftEventSubscriber(events)];
      const sending = await MikroORM.init({ ...options, subscribers });
      try {
        const [pair] = await seedPairs(database.pool, 1, 1);
        const { rows } = await database.pool.query('select min(id) as id from gifts');
        const commit = async (orm: MikroORM): Promise<number> => {
          const startedAt = performance.now();
          await orm.em.fork().transactional(async (em) => {
            const { personId, occasionId } = pair!;
            const ids = { gift: rows[0].id, person: personId, occasionId };
            em.create(GiftPerson, {
              ...ids,
              budget: [personId, occasionId],
              amount: '1.00',
            } as never);
          });
          return performance.now() - startedAt;
        };
        for (const orm of [plain, sending]) await commit(orm);
        if (how === 'stopped') await redis.stop();
        if (how === 'frozen') redis.freeze();
        const times = { plain: [] as number[], sending: [] as number[] };
        for (let n = 0; n < 40; n += 1) {
          times.plain.push(await commit(plain));
          times.sending.push(await commit(sending));
        }
        // A wait for Redis would be 100 ms where it is away, and 5 s where it does not answer.
        expect(median(times.sending)).toBeLessThan(2 * median(times.plain) + 10);
        expect(await countMarks(database.pool)).toBe(82);
      } finally {
        await plain.close();
        await sending.close();
      }
    },
  );

  it('counts what was not sent and says why, and sends again once Redis is back', async () => {
    openEvents();
    await events.sendAfter(async (changed) => changed.giftAssigned(pairs(300)));
    await eventually(
      async () => events.counts(),
      ({ failed }) => failed === 300,
    );
    expect(errors.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^200 of 200 gift events were not sent: connect ECONNREFUSED/),
      expect.stringMatching(/^100 of 100 gift events were not sent: connect ECONNREFUSED/),
    ]);
    await redis.start();
    await sendOne();
  });

  it('holds no more than its bound, however long Redis does not answer', async () => {
    openEvents({ pairsMax: 1_000 });
    await redis.start();
    await sendOne();
    redis.freeze();
    for (let n = 0; n < 100; n += 1) {
      await events.sendAfter(async (changed) => changed.giftAssigned(pairs(100, 1 + n * 100)));
    }
    const { waiting, dropped, sent } = events.counts();
    expect(waiting).toBe(1_000);
    // The rest, but for those that are on their way and get no answer.
    expect(dropped).toBeGreaterThanOrEqual(10_000 - 1_000 - 400);
    await within(5_000, events.close());
    expect(events.counts()).toMatchObject({ waiting: 0, sent });
  });

  it('a listener that throws keeps nothing from being sent', async () => {
    openEvents({
      onError() {
        throw new Error('the listener is broken');
      },
    });
    const rejected = once(process, 'unhandledRejection').then(() => 'rejected');
    await events.sendAfter(async (changed) => changed.giftAssigned(pairs(1)));
    await eventually(
      async () => events.counts().failed,
      (failed) => failed === 1,
    );
    await redis.start();
    expect(await Promise.race([rejected, sendOne().then(() => 'sent')])).toBe('sent');
  });
});

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}
