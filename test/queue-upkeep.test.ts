import { expect, it, onTestFinished } from 'vitest';
import {
  createGiftEventsWorker,
  openGiftEventsQueue,
  prepareQueue,
  type QueueConnection,
} from '../src/queue.ts';
import { eventually } from './support/budgets.ts';
import { createTestDatabase } from './support/servers.ts';

it('a job ends while the check for stalled ones holds those that ended before', async () => {
  const database = await createTestDatabase();
  onTestFinished(async () => await database.close());
  const connection: QueueConnection = { backend: 'postgres', url: database.url };
  await prepareQueue(connection);
  const looking = openGiftEventsQueue(connection, () => {});
  onTestFinished(async () => await looking.close());
  await looking.connected();
  const { queue } = looking;
  const worker = createGiftEventsWorker(connection, async () => {}, 1);
  onTestFinished(async () => await worker.close());
  void worker.run();
  const complete = async (): Promise<string> => {
    const { id } = await queue.add('gift.moved', {});
    await eventually(
      async () => await queue.getJobState(id!),
      (state) => state === 'completed',
    );
    return id!;
  };

  const first = await complete();
  await database.pool.query(
    `insert into bullmq.job
     select (jsonb_populate_record(j, jsonb_build_object('id', 'copy-' || n))).*
       from bullmq.job j, generate_series(1, 2000) n where j.id = $1`,
    [first],
  );
  // Such a check clears the marks of those that ended since the last one, then marks those that are
  // active: who waited for it with a job that is active would be in a deadlock.
  const check = await database.pool.connect();
  onTestFinished(() => check.release(true));
  await check.query('begin');
  await check.query('update bullmq.job set stalled_marked = false');
  expect(Number(await complete())).toBeGreaterThan(Number(first));
});
