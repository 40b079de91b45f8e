import { describe, inject, onTestFinished } from 'vitest';
import type { Queryable } from '../../../src/database.ts';
import { GiftEventClient } from '../../../src/events/client.ts';
import type { Pair } from '../../../src/events/contract.ts';
import { openGiftEventsQueue, type QueueConnection } from '../../../src/queue.ts';
import { assign, eventually, seedPairs, spent } from '../../support/budgets.ts';
import { createOwnRedis, freePort, type OwnRedis } from '../../support/outages.ts';
import { type Program, startProgram } from '../../support/run-program.ts';
import { createTestDatabase, type TestDatabase } from '../../support/servers.ts';
import type { Send } from './load.ts';

export type Backend = QueueConnection['backend'];

/** Runs the tests of a fault once for each place the queue may live in. */
export function describeQueues(name: string, suite: (backend: Backend) => void): void {
  describe(`${name}, queue in PostgreSQL`, () => suite('postgres'));
  describe.skipIf(inject('redisUrl') === null)(`${name}, queue in Redis`, () => suite('redis'));
}

/** The stores of one test, ended with it. */
export interface Scene {
  readonly database: TestDatabase;
  readonly queue: QueueConnection;
  /** The test's own, because a worker process knows no prefix; null with the queue in PostgreSQL. */
  readonly redis: OwnRedis | null;
  readonly pairs: readonly Pair[];
}

/** A database with budgets for persons × occasions, and a queue, for the test that calls it. */
export async function openScene(
  backend: Backend,
  { persons = 50, occasions = 4 } = {},
): Promise<Scene> {
  const database = await createTestDatabase();
  onTestFinished(async () => await database.close());
  const pairs = await seedPairs(database.pool, persons, occasions);
  const redis = backend === 'redis' ? await openRedis() : null;
  const { url } = database.worker;
  const queue: QueueConnection = redis?.connection ?? { backend: 'postgres', url };
  return { database, queue, redis, pairs };
}

export async function openRedis(): Promise<OwnRedis> {
  const redis = createOwnRedis(await freePort());
  onTestFinished(async () => await redis.stop());
  await redis.start();
  return redis;
}

/**
 * Starts a real `gift-budgets start`, and waits until it has started. The test's end kills it, and
 * fails the test if it had ended by itself.
 */
export async function startWorkerProcess(
  { worker }: { readonly worker: { readonly url: string } },
  queue: QueueConnection,
  env: NodeJS.ProcessEnv = {},
): Promise<Program> {
  const program = startProgram(['start'], {
    DATABASE_URL: worker.url,
    GIFT_BUDGETS_DASHBOARD_PORT: '0',
    ...(queue.backend === 'redis' && { REDIS_URL: queue.url }),
    ...env,
  });
  let isKilled = false;
  let isGone = false;
  void program.ended().then(() => (isGone = !isKilled));
  const kill = (signal: NodeJS.Signals): void => {
    isKilled = true;
    program.kill(signal);
  };
  onTestFinished(async () => {
    kill('SIGKILL');
    const { err } = await program.ended();
    if (isGone) throw new Error(`a worker ended by itself; it said last:\n${err.slice(-4_000)}`);
  });
  await program.said(/"started"/);
  return Object.assign(Object.create(program) as Program, { kill });
}

/**
 * Makes each matching contribution take so long to sum, so that batches last long enough to be hit.
 *
 * @param matching a condition on gift_persons.
 */
export async function slowDown(db: Queryable, seconds: number, matching = 'true'): Promise<void> {
  await db.query(`create or replace view budget_contributions (person_id, occasion_id, amount) as
    select person_id, occasion_id, amount
      from gift_persons
     where occasion_id is not null and amount is not null
       and (not (${matching}) or pg_sleep(${seconds}) is not null)`);
}

/**
 * Changes a pair that nobody else changes so many times, one after the other.
 *
 * @returns the longest time in milliseconds from a change to its being in the stored total.
 */
export async function slowestTotal(db: Queryable, pair: Pair, changes: number): Promise<number> {
  let slowestMs = 0;
  for (let change = 1; change <= changes; change += 1) {
    await assign(db, pair, '1.00');
    const startedAt = performance.now();
    await eventually(
      () => spent(db, pair),
      (stored) => stored === `${change}.00`,
    );
    slowestMs = Math.max(slowestMs, performance.now() - startedAt);
  }
  return slowestMs;
}

/** Sends through our client, as a TypeScript upstream does. */
export function clientSender(queue: QueueConnection): Send {
  const client = new GiftEventClient(queue);
  onTestFinished(async () => await client.close());
  return async (pairs) => await client.giftMoved(pairs, []);
}

/** Adds bare jobs, without any options, as a producer does that knows only the contract. */
export function bareSender(queue: QueueConnection): Send {
  const open = openGiftEventsQueue(queue, () => {});
  onTestFinished(async () => await open.close());
  return async (pairs) => {
    await open.connected();
    await open.queue.add('gift.moved', { version: 1, affected: pairs });
  };
}
