import pg from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import type { Pair } from '../../src/events/contract.ts';
import { openGiftEventsQueue } from '../../src/queue.ts';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import { assign, assignBehindTriggers, eventually, spent } from '../support/budgets.ts';
import { readMetrics } from '../support/metrics.ts';
import { createProxy, freePort } from '../support/outages.ts';
import { createRawProducer } from '../support/raw-jobs.ts';
import { runProgram } from '../support/run-program.ts';
import { malformedEvents, rawGarbage } from './support/garbage.ts';
import { describeQueues, openScene, type Scene, startWorkerProcess } from './support/scene.ts';

const POISON = 500;
const GARBAGE = 20;
const SEED = 20_261_124;

/**
 * Faults as an operator meets them: each shows on the overview, with what to do about it, and in the
 * metric that an alert watches; and is gone from both once what the overview says was done.
 */
describeQueues('on the overview and in the metrics', (backend) => {
  it('a worker that was killed: nothing answers, and the open page says so', async () => {
    const scene = await openScene(backend);
    const port = String(await freePort());
    const env = { GIFT_BUDGETS_DASHBOARD_PORT: port };
    const program = await startWorkerProcess(scene.database, scene.queue, env);
    const station = watch(`http://127.0.0.1:${port}`);
    await station.isWell();
    const page = hasBrowser ? await openInBrowser(station.url) : null;

    program.kill('SIGKILL');
    await program.ended();
    await expect(readMetrics(station.url), 'Prometheus sees up = 0').rejects.toThrow(
      'fetch failed',
    );
    await page?.getByText(/s old: gift-budgets does not answer/).waitFor();
    const [pair] = scene.pairs as [Pair];
    await assign(scene.database.pool, pair, '12.50');
    const status = await runProgram(['doctor'], settingsOf(scene));
    expect(status.out).toMatch(/no worker is connected to this database; the totals are .* behind/);
    expect(await spent(scene.database.pool, pair)).toBe('0.00');

    await startWorkerProcess(scene.database, scene.queue, env);
    await station.isWell();
    await eventually(
      async () => await spent(scene.database.pool, pair),
      (total) => total === '12.50',
    );
    await page?.getByText('All is well').waitFor();
    await page?.getByRole('alert').waitFor({ state: 'hidden' });
  }, 180_000);

  it('a worker whose connections hang', async () => {
    const scene = await openScene(backend);
    const port = await freePort();
    const { worker } = scene.database;
    const proxy = createProxy(port, new URL(worker.url));
    await proxy.start();
    onTestFinished(async () => await proxy.stop());
    const url = worker.url.replace(/:\d+\//, `:${port}/`);
    const through = { ...scene, database: { ...scene.database, worker: { ...worker, url } } };
    const station = await startStation(through);

    proxy.freeze();
    await station.shows('PostgreSQL does not answer', 'gift-budgets status');
    await station.measures('gift_budgets_ready{part="database"}', (ready) => ready === 0);
    await station.shows('This process stands still', 'gift-budgets start');
    await station.measures('gift_budgets_healthy', (healthy) => healthy === 0);
    // As the page says: it is started again.
    await station.stop();
    proxy.thaw();
    const next = await startStation(through);
    await next.measures('gift_budgets_healthy', (healthy) => healthy === 1);
  }, 180_000);

  it.runIf(backend === 'redis')(
    'Redis that is away',
    async () => {
      const scene = await openScene(backend);
      const station = await startStation(scene);
      await scene.redis!.stop();
      await station.shows('The queue does not answer', 'redis-cli -u "$REDIS_URL" ping');
      await station.measures('gift_budgets_ready{part="queue"}', (ready) => ready === 0);
      const doctor = await runProgram(['doctor'], settingsOf(scene));
      expect(doctor).toMatchObject({
        code: 1,
        out: expect.stringContaining('Redis cannot be asked'),
      });
      await scene.redis!.start();
      await station.isWell();
      await station.measures('gift_budgets_ready{part="queue"}', (ready) => ready === 1);
    },
    120_000,
  );

  it('drift, until "gift-budgets repair"', async () => {
    const scene = await openScene(backend);
    const [pair] = scene.pairs as [Pair];
    const station = await startStation(scene, {
      GIFT_BUDGETS_SWEEP_MODE: 'report',
      GIFT_BUDGETS_SWEEP_INTERVAL_MS: '1000',
    });
    await assignBehindTriggers(scene.database.pool, pair, '9.00');
    await station.shows('The last sweep found 1 total wrong with no mark', 'gift-budgets repair');
    await station.measures('gift_budgets_last_sweep_drifted_pairs', (pairs) => pairs === 1);
    await station.measures(
      'gift_budgets_drifted_pairs_total{outcome="reported"}',
      (pairs) => pairs >= 1,
    );
    expect(await runProgram(['repair'], settingsOf(scene))).toMatchObject({ code: 0 });
    expect(await spent(scene.database.pool, pair)).toBe('9.00');
    await station.isWell();
    await station.measures('gift_budgets_last_sweep_drifted_pairs', (pairs) => pairs === 0);
  }, 180_000);

  it('a flood of poison, until it is removed on the page of the queue', async () => {
    const scene = await openScene(backend);
    const [pair] = scene.pairs as [Pair];
    const station = await startStation(scene);
    const failed = (await floodWithPoison(scene)) + POISON;
    await assign(scene.database.pool, pair, '3.00');
    await station.shows(`${failed} gift events failed`, '/queues/queue/gift-events?status=failed');
    await station.measures('gift_budgets_queue_jobs{state="failed"}', (jobs) => jobs === failed);
    const metrics = await readMetrics(station.url);
    const refused = [...metrics]
      .filter(([series]) => /^gift_budgets_events_total\{.*outcome="failed"/.test(series))
      .reduce((sum, [, count]) => sum + count, 0);
    // Some of the garbage BullMQ can read all the same, and they are refused as events.
    expect(refused).toBeGreaterThanOrEqual(POISON);
    expect(refused + metrics.get('gift_budgets_unreadable_jobs_total')!).toBe(failed);
    expect(metrics.get('gift_budgets_healthy')).toBe(1);
    // The flood holds up no total.
    await eventually(
      async () => await spent(scene.database.pool, pair),
      (total) => total === '3.00',
    );

    // Its button "Clean all" leaves those that failed within the last seconds.
    const clean = `${station.url}/queues/api/queues/gift-events/clean/failed`;
    await eventually(
      async () => {
        await fetch(clean, { method: 'PUT' });
        return (await readMetrics(station.url)).get('gift_budgets_queue_jobs{state="failed"}');
      },
      (jobs) => jobs === 0,
    );
    await station.isWell();
  }, 180_000);

  it('a budget that somebody holds, until he is ended as "gift-budgets explain" says', async () => {
    const scene = await openScene(backend);
    const [held, other] = scene.pairs as [Pair, Pair];
    const station = await startStation(scene);
    const holder = new pg.Client({
      connectionString: scene.database.url,
      application_name: 'held',
    });
    holder.on('error', () => {});
    onTestFinished(async () => await holder.end().catch(() => {}));
    await holder.connect();
    await holder.query('begin');
    await holder.query(
      `update person_occasions set budget_notes = 'mine' where person_id = $1 and occasion_id = $2`,
      [held.personId, held.occasionId],
    );
    for (const pair of [held, other]) await assign(scene.database.pool, pair, '5.00');

    const names = ['--person', held.personId, '--occasion', held.occasionId].map(String);
    await station.shows('The totals are', `gift-budgets explain ${names.join(' ')}`);
    await station.measures('gift_budgets_lag_seconds', (seconds) => seconds > 10);
    await station.measures(
      'gift_budgets_recalculated_pairs_total{cause="mark",outcome="busy"}',
      (pairs) => pairs > 0,
    );
    expect(await spent(scene.database.pool, other), 'all others go on').toBe('5.00');
    const { out } = await runProgram(['explain', ...names], settingsOf(scene));
    const [ends] = /SELECT pg_terminate_backend\(\d+\)/.exec(out) ?? [];
    expect(ends, out).toBeDefined();
    await scene.database.pool.query(ends!);
    await station.isWell();
    await station.measures('gift_budgets_lag_seconds', (seconds) => seconds === 0);
    expect(await spent(scene.database.pool, held)).toBe('5.00');
  }, 180_000);
});

function settingsOf({ database, queue }: Scene): NodeJS.ProcessEnv {
  return {
    DATABASE_URL: database.worker.url,
    ...(queue.backend === 'redis' && { REDIS_URL: queue.url }),
  };
}

interface Station {
  readonly url: string;
  /** Waits until the overview has this, and this to do about it. */
  shows(what: string, todo: string): Promise<void>;
  measures(series: string, holds: (value: number) => boolean): Promise<void>;
  isWell(): Promise<void>;
  stop(): Promise<void>;
}

/** A real worker process, and its pages. */
async function startStation(scene: Scene, env: NodeJS.ProcessEnv = {}): Promise<Station> {
  const program = await startWorkerProcess(scene.database, scene.queue, env);
  const [, url] = await program.said(/"pages":"(http:\/\/[\d.:]+)"/);
  const station = watch(url!);
  await station.isWell();
  return {
    ...station,
    async stop() {
      program.kill('SIGKILL');
      await program.ended();
    },
  };
}

const SHOWN_WITHIN_MS = 60_000;

function watch(url: string): Station {
  const overview = async (): Promise<string> =>
    (await (await fetch(`${url}/overview`)).text())
      .replaceAll('&quot;', '"')
      .replaceAll('&amp;', '&');
  return {
    url,
    async shows(what, todo) {
      await eventually(
        overview,
        (text) => text.includes(what) && text.includes(todo) && !text.includes('All is well'),
        SHOWN_WITHIN_MS,
      );
    },
    async measures(series, holds) {
      await eventually(
        async () => (await readMetrics(url)).get(series),
        (value) => value !== undefined && holds(value),
        SHOWN_WITHIN_MS,
      );
    },
    async isWell() {
      await eventually(overview, (text) => text.includes('All is well'), SHOWN_WITHIN_MS);
    },
    async stop() {},
  };
}

async function openInBrowser(url: string) {
  const browser = await openBrowser();
  onTestFinished(async () => await browser.close());
  const page = await browser.newPage();
  await page.goto(url);
  return page;
}

/** Events that are wrong, and in Redis jobs that nobody can read; returns how many of the latter. */
async function floodWithPoison({ queue }: Scene): Promise<number> {
  const open = openGiftEventsQueue(queue, () => {});
  onTestFinished(async () => await open.close());
  await open.connected();
  const events = malformedEvents(SEED, POISON, queue.backend === 'redis');
  await open.queue.addBulk(events.map(({ name, data }) => ({ name, data })));
  if (queue.backend === 'postgres') return 0;
  const producer = createRawProducer(queue);
  for (const { id, fields } of rawGarbage(SEED, GARBAGE)) {
    await (fields === null ? producer.addId(id) : producer.add(id, fields));
  }
  producer.close();
  return GARBAGE;
}
