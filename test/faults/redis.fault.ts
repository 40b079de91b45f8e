import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, inject, it } from 'vitest';
import { countMarks, eventually, wrongTotals } from '../support/budgets.ts';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters, type Writers } from './support/load.ts';
import {
  bareSender,
  clientSender,
  openScene,
  type Scene,
  slowestTotal,
  startWorkerProcess,
} from './support/scene.ts';

const OUTAGE_MS = 15_000;
const RIGHT_WHILE_AWAY_MS_MAX = 5_000;

describe.skipIf(inject('redisUrl') === null)(
  'with its queue in Redis, every total is right',
  () => {
    it('after FLUSHALL, again and again', async () => {
      const scene = await openWorkingScene();
      const writers = startSendingWriters(scene);
      for (let flush = 0; flush < 6; flush += 1) {
        await sleep(500 + Math.random() * 1_000);
        await scene.redis!.run('flushall');
      }
      await settles(scene, writers, 'FLUSHALL');
    }, 90_000);

    it('after kill -9 and a start without data, again and again', async () => {
      const scene = await openWorkingScene();
      const writers = startSendingWriters(scene);
      for (let kill = 0; kill < 4; kill += 1) {
        await sleep(500 + Math.random() * 2_000);
        await scene.redis!.stop();
        await scene.redis!.start();
      }
      await settles(scene, writers, 'Redis killed and empty');
    }, 90_000);

    it('after its connections were cut, again and again', async () => {
      const scene = await openWorkingScene();
      const writers = startSendingWriters(scene);
      for (let cut = 0; cut < 20; cut += 1) {
        await sleep(Math.random() * 600);
        await scene.redis!.run('client', 'kill', 'type', 'normal');
      }
      await settles(scene, writers, 'Redis connections cut');
    }, 90_000);

    it(`while Redis is away for ${OUTAGE_MS} ms, and afterwards`, async () => {
      const scene = await openWorkingScene();
      const [alone, ...pairs] = scene.pairs;
      const before = startSendingWriters({ ...scene, pairs });
      await sleep(2_000);
      let isOver = false;
      const over = sleep(OUTAGE_MS).then(() => (isOver = true));
      await scene.redis!.stop();

      const slowestMs = await slowestTotal(scene.database.pool, alone!, 20);
      const { changes } = await before.stop();
      const stoppedAt = performance.now();
      await eventually(
        () => countMarks(scene.database.pool),
        (marks) => marks === 0,
      );
      const rightMs = performance.now() - stoppedAt;
      expect(await wrongTotals(scene.database.pool)).toEqual([]);
      expect(slowestMs).toBeLessThan(RIGHT_WHILE_AWAY_MS_MAX);
      expect(rightMs).toBeLessThan(RIGHT_WHILE_AWAY_MS_MAX);
      expect(isOver, 'measured too late').toBe(false);

      const after = startSendingWriters({ ...scene, pairs });
      await over;
      const eventsAway = after.events;
      await scene.redis!.start();
      await eventually(
        async () => after.events,
        (events) => events > eventsAway,
      );
      await settles(
        scene,
        after,
        'Redis away for 15 s',
        `while it was away ${changes} changes were right ${rightMs.toFixed(0)} ms after the last, ` +
          `and single ones ${slowestMs.toFixed(0)} ms after their commit at most`,
      );
    }, 120_000);
  },
);

async function openWorkingScene(): Promise<Scene> {
  const scene = await openScene('redis');
  await Promise.all([1, 2].map(() => startWorkerProcess(scene.database, scene.queue)));
  return scene;
}

function startSendingWriters({ database, queue, pairs }: Scene): Writers {
  const toClient = clientSender(queue);
  const toQueue = bareSender(queue);
  return startWriters(database, pairs, {
    send: async (touched) => await (Math.random() < 0.5 ? toClient : toQueue)(touched),
  });
}

/** After the last fault the load goes on for a moment, so that the workers must be back. */
async function settles(
  { database, queue }: Scene,
  writers: Writers,
  name: string,
  note?: string,
): Promise<void> {
  await sleep(2_000);
  const written = await writers.stop();
  await expectAtRest(database.pool, queue, { name, written, ...(note && { note }) });
}
