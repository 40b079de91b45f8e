import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import type { QueueConnection } from '../../src/queue.ts';
import { assign, countMarks, eventually, seedPairs } from '../support/budgets.ts';
import { expectAtRest, wrongUnlisted } from './support/at-rest.ts';
import { startWriters, type Writers } from './support/load.ts';
import { OBSERVER, type OwnPostgres, startOwnPostgres } from './support/own-postgres.ts';
import {
  type Backend,
  bareSender,
  clientSender,
  describeQueues,
  openRedis,
  slowDown,
  startWorkerProcess,
} from './support/scene.ts';

const CONNECTIONS_MAX = 80;
const FULL_MS = 6_000;
const STATEMENT_TIMEOUT_MS = 300;
const SLOW_PAIRS = 3;
/** Statements time out for these pairs only: the others are right within this time nonetheless. */
const OTHERS_RIGHT_MS_MAX = 30_000;

describeQueues('PostgreSQL', (backend) => {
  it('crashing under load leaves no wrong total and fails no job', async () => {
    const { postgres, queue, writers } = await openWorkingScene(backend);
    for (let crash = 0; crash < 3; crash += 1) {
      await sleep(1_000 + Math.random() * 2_000);
      await postgres.crash();
    }
    await settles(postgres, queue, writers, 'PostgreSQL crashed');
  }, 180_000);

  it('ending its connections at random leaves no wrong total and fails no job', async () => {
    const { postgres, queue, writers } = await openWorkingScene(backend);
    let ended = 0;
    for (const until = performance.now() + 8_000; performance.now() < until;) {
      await sleep(Math.random() * 200);
      const { rowCount } = await postgres.observer.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and application_name <> $1
          order by random() limit 1`,
        [OBSERVER],
      );
      ended += rowCount!;
    }
    await settles(postgres, queue, writers, 'connections ended', `${ended} ended`);
    expect(ended).toBeGreaterThan(20);
  }, 180_000);

  it('out of connections leaves no wrong total and fails no job', async () => {
    const { postgres, queue, writers } = await openWorkingScene(backend);
    await sleep(1_000);
    const takers = await takeAllConnections(postgres);
    await sleep(FULL_MS);
    expect(await reach(postgres.url), 'no room for one more').toBe('53300');
    await takers.release();
    await settles(postgres, queue, writers, 'out of connections', `${takers.taken} taken`);
  }, 180_000);

  it('with a statement time-out that a few pairs run into has the others right', async () => {
    const { postgres, queue, writers, pairs } = await openWorkingScene(backend);
    const { observer } = postgres;
    const slowPairs = pairs.slice(0, SLOW_PAIRS);
    const slow = slowPairs.map((p) => `(${p.personId}, ${p.occasionId})`);
    const isSlow = `(person_id, occasion_id) in (${slow.join(', ')})`;
    await slowDown(observer, (2 * STATEMENT_TIMEOUT_MS) / 1_000, isSlow);
    const setting = 'alter database faults set statement_timeout';
    await observer.query(`${setting} = ${STATEMENT_TIMEOUT_MS}`);
    await endOthers(observer);
    await sleep(5_000);
    const { changes } = await writers.stop();
    // The writers may have left them without an assignment, and then they are not slow.
    for (const pair of slowPairs) await assign(observer, pair, '1.00');
    const stoppedAt = performance.now();
    const wrong = await eventually(
      () => wrongUnlisted(observer),
      (found) => found.every((each) => slow.some((pair) => isOf(each, pair))),
      OTHERS_RIGHT_MS_MAX,
    );
    const othersMs = performance.now() - stoppedAt;
    expect(await countMarks(observer), 'marks of slow pairs').toBeGreaterThan(0);

    await observer.query(`${setting} = 0`);
    await endOthers(observer);
    const written = { changes, events: writers.events };
    await expectAtRest(observer, queue, {
      name: 'statement time-out',
      written,
      note: `${wrong.length} slow pairs were wrong, the others right after ${(othersMs / 1_000).toFixed(1)} s`,
    });
  }, 180_000);
});

async function openWorkingScene(backend: Backend) {
  const postgres = await startOwnPostgres({ max_connections: String(CONNECTIONS_MAX) });
  const pairs = await seedPairs(postgres.observer, 50, 4);
  const redis = backend === 'redis' ? await openRedis() : null;
  const queue: QueueConnection = redis?.connection ?? {
    backend: 'postgres',
    url: postgres.worker.url,
  };
  await Promise.all([1, 2].map(() => startWorkerProcess(postgres, queue)));
  const toClient = clientSender(queue);
  const toQueue = bareSender(queue);
  const writers = startWriters(postgres, pairs, {
    send: async (touched) => await (Math.random() < 0.5 ? toClient : toQueue)(touched),
  });
  return { postgres, queue, pairs, writers };
}

/** After the last fault the load goes on for a moment, so that the workers must be back. */
async function settles(
  { observer }: OwnPostgres,
  queue: QueueConnection,
  writers: Writers,
  name: string,
  note?: string,
): Promise<void> {
  const before = writers.changes;
  await eventually(
    async () => writers.changes,
    (changes) => changes > before + 50,
  );
  const written = await writers.stop();
  await expectAtRest(observer, queue, { name, written, ...(note && { note }) });
}

/** Ends all other connections and takes their places before their users have them again. */
async function takeAllConnections({ url, observer }: OwnPostgres) {
  const taken: pg.Client[] = [];
  let isFull = false;
  let isReleased = false;
  const take = async (): Promise<void> => {
    while (!isReleased) {
      const client = new pg.Client({ connectionString: url, application_name: OBSERVER });
      client.on('error', () => {});
      const isIn = await client.connect().then(
        () => taken.push(client),
        () => sleep(5).then(() => 0),
      );
      if (isIn === 0 && !isFull) {
        isFull = true;
        await endOthers(observer);
      }
    }
  };
  const taking = Promise.all([take(), take()]);
  const release = async (): Promise<void> => {
    isReleased = true;
    await taking;
    await Promise.all(taken.map(async (client) => await client.end()));
  };
  onTestFinished(release);
  await eventually(
    async () => isFull,
    (full) => full,
  );
  return {
    release,
    get taken() {
      return taken.length;
    },
  };
}

async function endOthers(observer: pg.Pool): Promise<void> {
  await observer.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name <> $1`,
    [OBSERVER],
  );
}

/** Connects once, and returns the code of the refusal. */
async function reach(url: string): Promise<string | null> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  return await client.connect().then(
    async () => await client.end().then(() => null),
    (error: { code?: string }) => error.code ?? String(error),
  );
}

function isOf(wrong: string, pair: string): boolean {
  return `(${wrong.split(':')[0]!.replace('-', ', ')})` === pair;
}
