import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters } from './support/load.ts';
import {
  bareSender,
  clientSender,
  describeQueues,
  openScene,
  slowestTotal,
  startWorkerProcess,
} from './support/scene.ts';

const LOAD_MS = 6_000;
const HOLD_MS_MAX = 12_000;
const TOTAL_MS_MAX = 6_000;

describeQueues('isolation', (backend) => {
  it.each(['repeatable read', 'serializable'])(
    'of upstreams at %s changes nothing',
    async (level) => {
      const { database, queue, pairs } = await openScene(backend);
      await startWorkerProcess(database, queue);
      const begin = `begin isolation level ${level}`;
      const writers = startWriters(database, pairs, { begin, send: clientSender(queue) });
      await sleep(LOAD_MS);
      const written = await writers.stop();
      const note = `${written.errors} failed and were theirs to try again`;
      await expectAtRest(database.pool, queue, { name: `upstream ${level}`, written, note });
    },
    90_000,
  );

  it('of upstreams that hold their changes uncommitted for seconds keeps nobody else', async () => {
    const { database, queue, pairs } = await openScene(backend);
    const [alone, ...others] = pairs;
    await startWorkerProcess(database, queue);
    const send = bareSender(queue);
    const begin = 'begin isolation level repeatable read';
    const long = startWriters(database, others, {
      begin,
      writers: 8,
      holdMsMax: HOLD_MS_MAX,
      send,
    });
    const short = startWriters(database, others, { send });
    const slowestMs = await slowestTotal(database.pool, alone!, 30);
    const written = await Promise.all([long.stop(), short.stop()]);
    await expectAtRest(database.pool, queue, {
      name: 'upstream open for seconds',
      written: {
        changes: written[0].changes + written[1].changes,
        events: written[0].events + written[1].events,
      },
      note: `meanwhile a total was right ${slowestMs.toFixed(0)} ms after its change at most`,
    });
    expect(slowestMs).toBeLessThan(TOTAL_MS_MAX);
  }, 120_000);

  it('of a database whose default is SERIALIZABLE and read only is not relied on', async () => {
    const { database, queue, pairs } = await openScene(backend);
    const name = new URL(database.url).pathname.slice(1);
    await database.pool.query(`
      alter database ${name} set default_transaction_isolation = 'serializable';
      alter database ${name} set default_transaction_read_only = on`);
    await startWorkerProcess(database, queue);
    const begin = 'begin isolation level read committed read write';
    const writers = startWriters(database, pairs, { begin, send: bareSender(queue) });
    await sleep(LOAD_MS);
    const written = await writers.stop();
    await expectAtRest(database.pool, queue, { name: 'serializable, read-only default', written });
    expect(written.events).toBeGreaterThan(0);
  }, 90_000);
});
