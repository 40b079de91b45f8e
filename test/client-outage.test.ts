import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GiftEventClient, GiftEventsNotSentError } from '../src/events/client.ts';
import { openGiftEventsQueue, type QueueConnection } from '../src/queue.ts';
import { eventually } from './support/budgets.ts';
import {
  createOwnRedis,
  createProxy,
  freePort,
  isOnPath,
  type OwnRedis,
  type Proxy,
  within,
} from './support/outages.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const pair = { personId: 1, occasionId: 2 };
const other = { personId: 3, occasionId: 4 };

/** Far more than any call takes, far less than for ever. */
const BOUND_MS = 40_000;

let port: number;
let client: GiftEventClient;
const send = async () => await client.giftMoved([pair], [other]);

describe.skipIf(!isOnPath('redis-server'))('while Redis is away, the client', () => {
  let redis: OwnRedis;

  beforeEach(async () => {
    port = await freePort();
    redis = createOwnRedis(port);
    client = new GiftEventClient(redis.connection);
  });
  afterEach(async () => {
    await within(BOUND_MS, client.close());
    await redis.stop();
  });

  it('says so if Redis was never there, and sends once it is', async () => {
    const refused = `2 of 2 gift events were not sent: connect ECONNREFUSED 127.0.0.1:${port}`;
    expect(await refusal(send())).toBe(refused);
    // Not only the first call, and not only one at a time.
    expect(await Promise.all([refusal(send()), refusal(send())])).toEqual([refused, refused]);
    await redis.start();
    await eventuallySent();
    expect(await waitingJobs(redis.connection)).toBe(2);
  });

  it('says so if Redis was there before, and sends once it is back', async () => {
    for (let outage = 1; outage <= 2; outage += 1) {
      await redis.start();
      await eventuallySent();
      await redis.stop();
      expect(await refusal(send())).toMatch(
        /^2 of 2 gift events were not sent: connect ECONNREFUSED/,
      );
    }
    await redis.start();
    await eventuallySent();
    expect(await waitingJobs(redis.connection)).toBe(2);
  });

  it('gives up on a Redis that has its connection and does not answer', async () => {
    await redis.start();
    await eventuallySent();
    redis.freeze();
    expect(await refusal(send())).toBe('2 of 2 gift events were not sent: Command timed out');
    redis.thaw();
    await eventuallySent();
  });

  it('gives up on a Redis that takes its connection and does not answer', async () => {
    await client.close();
    await redis.start();
    redis.freeze();
    client = new GiftEventClient(redis.connection);
    expect(await refusal(send())).toMatch(
      /^2 of 2 gift events were not sent: no connection within/,
    );
    redis.thaw();
    await eventuallySent();
  });

  it('gives the reason of this failure, not of an earlier one', async () => {
    expect(await refusal(send())).toMatch(/ECONNREFUSED/);
    await redis.start();
    await eventuallySent();
    await redis.run('config', 'set', 'maxmemory', '1');
    expect(await refusal(send())).toMatch(/^2 of 2 gift events were not sent: .*OOM/);
    await redis.run('config', 'set', 'maxmemory', '0');
    await send();
  });

  it('does not count what an earlier round trip of the same call has sent', async () => {
    await redis.start();
    await eventuallySent();
    // Of a type that the script of a job cannot read, so one job of the second round trip fails.
    await redis.run('lpush', 'bull:gift-events:de:1500-9', 'x');
    const pairs = Array.from({ length: 2_500 }, (_, n) => ({ personId: n + 1, occasionId: 9 }));
    expect(await refusal(client.giftAssigned(pairs))).toMatch(
      /^1500 of 2500 gift events were not sent: WRONGTYPE/,
    );
  });

  it.each(['never there', 'lost', 'frozen'])('can be closed when Redis is %s', async (how) => {
    if (how !== 'never there') {
      await redis.start();
      await eventuallySent();
    }
    if (how === 'lost') await redis.stop();
    if (how === 'frozen') redis.freeze();
    // Without a call before, too: afterEach closes a second time.
    await within(BOUND_MS, client.close());
    await expect(within(BOUND_MS, send())).rejects.toThrow(GiftEventsNotSentError);
  });
});

describe('while PostgreSQL is away, the client of a queue in it', () => {
  let database: TestDatabase;
  let proxy: Proxy;

  beforeEach(async () => {
    database = await createTestDatabase();
    port = await freePort();
    const url = new URL(database.url);
    proxy = createProxy(port, url);
    url.port = String(port);
    url.hostname = '127.0.0.1';
    client = new GiftEventClient({ backend: 'postgres', url: url.href });
  });
  afterEach(async () => {
    await within(BOUND_MS, client.close());
    await proxy.stop();
    await database.close();
  });

  it('says so if PostgreSQL was never there, and sends once it is', async () => {
    const refused = `2 of 2 gift events were not sent: connect ECONNREFUSED 127.0.0.1:${port}`;
    expect(await refusal(send())).toBe(refused);
    expect(await Promise.all([refusal(send()), refusal(send())])).toEqual([refused, refused]);
    await proxy.start();
    await send();
    expect(await waitingJobs({ backend: 'postgres', url: database.worker.url })).toBe(2);
  });

  it('says so if PostgreSQL was there before, and sends once it is back', async () => {
    for (let outage = 1; outage <= 2; outage += 1) {
      await proxy.start();
      await eventuallySent();
      await proxy.stop();
      expect(await refusal(send())).toMatch(/^2 of 2 gift events were not sent: /);
    }
    await proxy.start();
    await eventuallySent();
    expect(await waitingJobs({ backend: 'postgres', url: database.worker.url })).toBe(2);
  });

  it('gives up on a PostgreSQL that has its connection and does not answer', async () => {
    await proxy.start();
    await send();
    proxy.freeze();
    expect(await refusal(send())).toMatch(/^2 of 2 gift events were not sent: .*timeout/);
    proxy.thaw();
    await eventuallySent();
  });

  it('gives up on a PostgreSQL that takes its connection and does not answer', async () => {
    await proxy.start();
    proxy.freeze();
    expect(await refusal(send())).toMatch(/^2 of 2 gift events were not sent: .*timeout/);
    proxy.thaw();
    await eventuallySent();
  });
});

async function refusal(sending: Promise<unknown>): Promise<string> {
  const error = await within(BOUND_MS, sending).then(
    () => new Error('the events were sent'),
    (reason: Error) => reason,
  );
  expect(error).toBeInstanceOf(GiftEventsNotSentError);
  return error.message;
}

/** A lost connection comes back within a second of its server. */
async function eventuallySent(): Promise<void> {
  const attempt = async () => await send().catch((error: Error) => error.message);
  await eventually(attempt, (result) => typeof result !== 'string');
}

async function waitingJobs(connection: QueueConnection): Promise<number> {
  const looking = openGiftEventsQueue(connection, () => {});
  try {
    await looking.connected();
    return await looking.queue.getWaitingCount();
  } finally {
    await looking.close();
  }
}
