import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { enqueueCommand } from '../src/commands/enqueue.ts';
import { GIFT_EVENT_NAMES } from '../src/events/contract.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { emptyQueue } from './support/empty-queue.ts';
import { runCommand } from './support/run-command.ts';
import { runProgram } from './support/run-program.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});

afterAll(async () => {
  await database.close();
});

describeBackends('enqueue', (open) => {
  let queue: QueueConnection;
  let looking: OpenQueue;

  beforeAll(async () => {
    queue = await open(database);
    looking = openGiftEventsQueue(queue, () => {});
    await looking.connected();
  });

  afterAll(async () => {
    await looking.close();
  });

  const enqueue = async (...args: string[]) =>
    await runCommand(enqueueCommand, { ...database, queue }, ['enqueue', ...args]);

  const takeJobs = async () => {
    const jobs = await looking.queue.getJobs(['waiting'], 0, -1, true);
    await emptyQueue(looking.queue, queue);
    return jobs.map(({ name, data }) => ({ name, data: data as unknown }));
  };

  test.each(GIFT_EVENT_NAMES)('adds %s', async (name) => {
    expect(await enqueue(name, '--pair', '1:2')).toEqual({
      out: 'added 1 job\n',
      err: '',
      exitCode: 0,
    });
    const data = { version: 1, affected: [{ personId: 1, occasionId: 2 }] };
    expect(await takeJobs()).toEqual([{ name, data }]);
  });

  test('adds a job for each pair that is named, and one for a pair named twice', async () => {
    const id = '9223372036854775807';
    const pairs = ['1:2', `${id}:1`, '1:2'].flatMap((pair) => ['--pair', pair]);
    expect((await enqueue('gift.moved', ...pairs)).out).toBe('added 2 jobs\n');
    const affected = (await takeJobs()).map(({ data }) => (data as { affected: unknown }).affected);
    expect(affected).toEqual([[{ personId: 1, occasionId: 2 }], [{ personId: id, occasionId: 1 }]]);
  });

  test('adds a job for a gift', async () => {
    expect((await enqueue('gift.repriced', '--gift', '7')).out).toBe('added 1 job\n');
    expect(await takeJobs()).toEqual([
      { name: 'gift.repriced', data: { version: 1, giftId: expect.anything() } },
    ]);
  });
});

describe('what it refuses', () => {
  const refusal = async (...args: string[]): Promise<string> =>
    await runCommand(enqueueCommand, database, ['enqueue', ...args]).then(
      () => Promise.reject(new Error('it was accepted')),
      (error: Error) => error.message,
    );

  test.each([
    [
      ['gift.assignd', '--pair', '1:2'],
      /^name: expected one of gift.assigned, .*, got "gift.assignd"$/,
    ],
    [['gift.assigned'], /^data.affected: expected at least one of .*\(--pair is data.affected/],
    [
      ['gift.moved', '--gift', '7'],
      /^data.affected: expected a list of 1 to 500 pairs, got nothing/,
    ],
    [
      ['gift.moved', '--pair', '0:2'],
      /^data.affected\[0\].personId: expected an id: .*, got "0" \(--pair/,
    ],
    [
      ['gift.moved', '--pair', '1:2', '--pair', '1:9223372036854775808'],
      /^data.affected\[1\].occasionId: expected an id: .*, got "9223372036854775808"/,
    ],
    [['gift.assigned', '--gift', 'x'], /^data.giftId: expected an id: .*, got "x"/],
    [['gift.moved', '--pair', '12'], /'12' is invalid. expected PERSON:OCCASION, two ids/],
    [['gift.moved', '--pair', '1:2:3'], /'1:2:3' is invalid. expected PERSON:OCCASION, two ids/],
  ])('%j is told with field and value, before a server is asked for', async (args, message) => {
    expect(await refusal(...args)).toMatch(message);
  });

  test('a process says so on standard error and exits with 1', async () => {
    const env = { DATABASE_URL: database.worker.url };
    const [unknown, missing, noQueue] = await Promise.all([
      runProgram(['enqueue', 'gift.lost', '--pair', '1:2'], env),
      runProgram(['enqueue'], env),
      runProgram(['enqueue', 'gift.moved', '--pair', '1:2'], {
        ...env,
        REDIS_URL: 'redis://127.0.0.1:1',
      }),
    ]);
    expect(unknown).toMatchObject({ code: 1, out: '' });
    expect(unknown.err).toMatch(/^error: name: expected one of .*, got "gift.lost"\n$/);
    expect(missing).toMatchObject({ code: 1, out: '' });
    expect(missing.err).toContain("missing required argument 'name'");
    expect(noQueue).toMatchObject({ code: 1, out: '' });
    expect(noQueue.err).toMatch(/^error: 1 of 1 gift events were not sent: .*ECONNREFUSED/);
  });
});
