import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import type { JobType, Queue } from 'bullmq';
import type { Pair } from '../../src/events/contract.ts';
import { openGiftEventsQueue, type QueueConnection } from '../../src/queue.ts';
import { startCatchUp } from '../../src/recalculation/catch-up.ts';
import type { Observer } from '../../src/recalculation/observer.ts';
import { startWorker } from '../../src/recalculation/worker.ts';
import { startBoard } from '../support/board.ts';
import { assign, eventually, wrongTotals } from '../support/budgets.ts';
import { createRawProducer } from '../support/raw-jobs.ts';
import { untilAtRest } from './support/at-rest.ts';
import { type MalformedEvent, malformedEvents, rawGarbage } from './support/garbage.ts';
import { startWriters } from './support/load.ts';
import { describeQueues, openScene, type Scene } from './support/scene.ts';

const MALFORMED = 10_000;
const GARBAGE = 400;
const GOOD = 1_000;
const BULK = 500;
const LOOK_INTERVAL_MS = 300;
const STATES: JobType[] = ['waiting', 'active', 'completed', 'failed', 'delayed', 'prioritized'];

describeQueues('of thousands of malformed jobs between good ones', (backend) => {
  it('each fails visibly, by its field and value, and no good one is held up', async () => {
    const scene = await openScene(backend);
    const queue = await openQueue(scene.queue);
    const seed = Date.now() % 2 ** 31;
    const malformed = malformedEvents(seed, MALFORMED, backend === 'redis');
    const good = await changeAndName(scene);
    const malformedById = await addMixed(queue, good, malformed);
    const writers = startWriters(scene.database, written(scene));
    const seen = await startCounting(scene);
    const startedAt = performance.now();
    await untilServed(queue, 240_000);
    const tookMs = performance.now() - startedAt;
    const { changes } = await writers.stop();
    await untilAtRest(scene.database.pool, scene.queue);

    const failed = await failedJobs(queue, MALFORMED);
    const unclear = failed.flatMap(({ id, failedReason }) => {
      const says = malformedById.get(id!)?.says ?? ['no malformed job'];
      return says.every((text) => failedReason!.includes(text)) ? [] : [{ says, failedReason }];
    });
    const reasons = new Set(failed.map((job) => job.failedReason));
    console.log(
      `fault malformed jobs (${backend}), seed ${seed}: ${MALFORMED} malformed and ${GOOD} good ` +
        `ones in ${(tookMs / 1_000).toFixed(1)} s, ${failed.length} failed for ${reasons.size} ` +
        `reasons, ${unclear.length} of them unclear; ${changes} changes meanwhile`,
    );
    expect(unclear).toEqual([]);
    expect(failed).toHaveLength(MALFORMED);
    expect(seen).toMatchObject({ failed: MALFORMED, completed: GOOD, setAside: [] });
    expect(await wrongTotals(scene.database.pool)).toEqual([]);
  }, 300_000);
});

describe.skipIf(inject('redisUrl') === null)(`of ${GARBAGE} jobs of raw garbage on Redis`, () => {
  it('each is set aside, no good one is held up, and the page shows every list', async () => {
    const scene = await openScene('redis');
    const queue = await openQueue(scene.queue);
    const raw = createRawProducer(scene.queue as QueueConnection & { backend: 'redis' });
    onTestFinished(() => raw.close());
    const dashboard = await startBoard(queue);
    onTestFinished(async () => await dashboard.stop());
    const seed = Date.now() % 2 ** 31;
    const garbage = rawGarbage(seed, GARBAGE);
    const good = await changeAndName(scene);
    for (const [at, event] of good.entries()) {
      await queue.add(event.name, event.data);
      const bad = garbage[at];
      if (bad === undefined) continue;
      if (bad.fields === null) await raw.redis.set(raw.key(bad.id), 'no hash');
      await (bad.fields === null ? raw.addId(bad.id) : raw.add(bad.id, bad.fields));
    }
    const showAll = async (): Promise<number> => {
      const shown = STATES.map(async (state) => await queue.getJobs([state], 0, 99));
      await Promise.all(shown);
      const query = 'activeQueue=gift-events&page=1&jobsPerPage=50';
      const pages = ['latest', ...STATES].map(
        async (status) =>
          await fetch(`${dashboard.url}/queues/api/queues?${query}&status=${status}`),
      );
      for (const page of await Promise.all(pages)) expect(page.status).toBe(200);
      return pages.length;
    };

    let pages = await showAll();
    const writers = startWriters(scene.database, written(scene));
    const seen = await startCounting(scene);
    const startedAt = performance.now();
    const served = untilServed(queue, 60_000);
    const lookAgain = async (): Promise<boolean> =>
      await Promise.race([served.then(() => false), sleep(LOOK_INTERVAL_MS, true)]);
    while (await lookAgain()) pages += await showAll();
    const tookMs = performance.now() - startedAt;
    pages += await showAll();
    const { changes } = await writers.stop();
    await untilAtRest(scene.database.pool, scene.queue);

    console.log(
      `fault raw garbage, seed ${seed}: ${GARBAGE} unreadable and ${GOOD} good jobs in ` +
        `${(tookMs / 1_000).toFixed(1)} s, ${seen.setAside.length} set aside, ` +
        `${seen.queueErrors.length} queue errors; ${pages} pages shown and ${changes} changes meanwhile`,
    );
    expect(seen.setAside.toSorted()).toEqual(
      garbage.map(({ id, fields }) => (fields === null ? `unreadable-${id}` : id)).toSorted(),
    );
    expect(seen).toMatchObject({ failed: 0, completed: GOOD });
    expect(await queue.getJobCountByTypes('failed')).toBe(GARBAGE);
    expect(await wrongTotals(scene.database.pool)).toEqual([]);
  }, 120_000);
});

interface Event {
  readonly name: string;
  readonly data: unknown;
}

async function openQueue(connection: QueueConnection): Promise<Queue> {
  const open = openGiftEventsQueue(connection, () => {});
  onTestFinished(async () => await open.close());
  await open.connected();
  return open.queue;
}

const WRITTEN = 40;

/** The pairs that writers change all along, and whose marks alone tell of it. */
function written({ pairs }: Scene): readonly Pair[] {
  return pairs.slice(-WRITTEN);
}

/** Changes the other pairs behind their marks' backs, so that only good events make them right. */
async function changeAndName({ database, pairs: all }: Scene): Promise<Event[]> {
  const pairs = all.slice(0, -WRITTEN);
  for (const pair of pairs) await assign(database.upstream.pool, pair, '1.00');
  await database.pool.query('truncate pending_recalculations');
  return Array.from({ length: GOOD }, (_, n) => ({
    name: 'gift.assigned',
    data: { version: 1, affected: [pairs[n % pairs.length]] },
  }));
}

/** Puts the malformed ones between the good ones, and returns them by the id of their job. */
async function addMixed(
  queue: Queue,
  good: readonly Event[],
  malformed: readonly MalformedEvent[],
) {
  const every = malformed.length / good.length;
  const mixed: (Event | MalformedEvent)[] = good.flatMap((event, n) => [
    event,
    ...malformed.slice(Math.floor(n * every), Math.floor((n + 1) * every)),
  ]);
  const malformedById = new Map<string, MalformedEvent>();
  for (let from = 0; from < mixed.length; from += BULK) {
    const events = mixed.slice(from, from + BULK);
    const jobs = await queue.addBulk(events.map(({ name, data }) => ({ name, data })));
    for (const [at, event] of events.entries()) {
      if ('says' in event) malformedById.set(jobs[at]!.id!, event);
    }
  }
  return malformedById;
}

async function startCounting({ database, queue }: Scene) {
  const seen = { completed: 0, failed: 0, setAside: [] as string[], queueErrors: [] as Error[] };
  const observer: Observer = {
    event: (_name, outcome) => (seen[outcome] += 1),
    unreadable: (jobId) => seen.setAside.push(jobId),
    queueError: (error) => seen.queueErrors.push(error),
  };
  const sizes = { concurrency: 100, pairsMax: 500, drainTimeoutMs: 5_000 };
  const worker = await startWorker({ pool: database.worker.pool, queue, ...sizes, observer });
  onTestFinished(async () => await worker.stop());
  const timing = { pollMinMs: 10, pollMaxMs: 250, graceMs: () => 0 };
  const catchUp = startCatchUp({ pool: database.worker.pool, pairsMax: 500, ...timing });
  onTestFinished(async () => await catchUp.stop());
  return seen;
}

async function untilServed(queue: Queue, timeoutMs: number): Promise<void> {
  await eventually(
    async () => await queue.getJobCountByTypes('waiting', 'active', 'delayed'),
    (left) => left === 0,
    timeoutMs,
  );
}

async function failedJobs(queue: Queue, count: number) {
  const jobs = [];
  for (let from = 0; from < count; from += BULK) {
    jobs.push(...(await queue.getFailed(from, from + BULK - 1)));
  }
  return jobs;
}
