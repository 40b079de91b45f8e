import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { openGiftEventsQueue, type QueueConnection } from '../../src/queue.ts';
import { expectAtRest } from './support/at-rest.ts';
import { type Send, startWriters } from './support/load.ts';
import { bareSender, describeQueues, openScene, startWorkerProcess } from './support/scene.ts';

const LOAD_MS = 6_000;
const LATE_MS_MAX = 2_000;

describeQueues('gift events', (backend) => {
  it('that all come twice, late and in random order do no harm', async () => {
    const { database, queue, pairs } = await openScene(backend);
    await startWorkerProcess(database, queue);
    const { send, allSent } = disorderly(bareSender(queue));
    const writers = startWriters(database, pairs, { send });
    await sleep(LOAD_MS);
    const { changes } = await writers.stop();
    const written = { changes, events: await allSent() };
    await expectAtRest(database.pool, queue, { name: 'events disordered', written });
  }, 90_000);

  it.each([
    ['half of them', 0.5],
    ['all of them', 1],
  ])(
    'are but hints: with %s dropped the marks do it',
    async (share, dropped) => {
      const { database, queue, pairs } = await openScene(backend);
      await startWorkerProcess(database, queue);
      const toQueue = bareSender(queue);
      const send: Send = async (touched) => {
        if (Math.random() < dropped) throw new Error('lost');
        await toQueue(touched);
      };
      const writers = startWriters(database, pairs, { send });
      await sleep(LOAD_MS);
      const written = await writers.stop();
      await expectAtRest(database.pool, queue, { name: `events dropped, ${share}`, written });
      expect(await jobsEver(queue)).toBe(written.events);
    },
    90_000,
  );
});

/** Sends every event twice, each time at a moment of its own, so that later ones overtake. */
function disorderly(toQueue: Send) {
  const sending: Promise<unknown>[] = [];
  const sendLate = async (pairs: Parameters<Send>[0]): Promise<void> => {
    await sleep(Math.random() * LATE_MS_MAX);
    await toQueue(pairs);
  };
  return {
    send: (async (pairs) => void sending.push(sendLate(pairs), sendLate(pairs))) satisfies Send,
    allSent: async (): Promise<number> => (await Promise.all(sending)).length,
  };
}

/** How many jobs there were; the queue keeps more of them than a test adds. */
async function jobsEver(connection: QueueConnection): Promise<number> {
  const open = openGiftEventsQueue(connection, () => {});
  await open.connected();
  const jobs = await open.queue.getJobCountByTypes();
  await open.close();
  return jobs;
}
