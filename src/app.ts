import type { Logger } from 'pino';
import type { Config } from './config.ts';
import { knownMigrations } from './database.ts';
import { logObserver } from './operations/log-observer.ts';
import { createMonitor, type Monitor } from './operations/monitor.ts';
import { servePages } from './operations/serve-pages.ts';
import type { WebServer } from './operations/web-server.ts';
import { startCatchUp } from './recalculation/catch-up.ts';
import type { Observer } from './recalculation/observer.ts';
import { startSweeps } from './recalculation/sweep-loop.ts';
import { startWorker } from './recalculation/worker.ts';
import type { Stores } from './stores.ts';

export interface App {
  /** The pages to look at it; null where none were asked for. */
  readonly pages: WebServer | null;
  /** Stops the parts in the reverse order of their start; the stores stay open. */
  stop(): Promise<void>;
}

export interface AppOptions {
  readonly pages?: boolean;
  readonly observer?: Observer;
}

/** An event is expected to come with its mark while the last one is no older than this. */
const EVENTS_ARRIVING_MS = 1_000;

/**
 * Starts all that keeps the totals right: the worker for the gift events, the catch-up for the
 * marks, the sweeps for what goes round both, and the pages to look at them.
 */
export async function startApp(
  config: Config,
  stores: Stores,
  log: Logger,
  options: AppOptions = {},
): Promise<App> {
  const started: { stop(): Promise<void> }[] = [];
  const stop = async (): Promise<void> => {
    for (const part of started.toReversed()) await part.stop();
  };
  try {
    const monitor = await createMonitor({
      databaseUrl: stores.databaseUrl,
      pooled: config.pooler === 'transaction',
      queue: stores.queue,
      knownMigrations: await knownMigrations(),
      observer: options.observer ?? logObserver(log),
      log,
    });
    started.push(monitor);
    started.push(await startWork(config, stores, monitor));
    if (options.pages === false) return { pages: null, stop };
    const pages = await servePages(config, monitor, log);
    started.push(pages);
    return { pages, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startWork(
  config: Config,
  { database: { pool }, queue }: Stores,
  monitor: Monitor,
): Promise<{ stop(): Promise<void> }> {
  const { observer } = monitor;
  const untilSchemaFits = monitor.schemaWatch.untilFits;
  const worker = await startWorker({
    pool,
    queue,
    concurrency: config.workerConcurrency,
    pairsMax: config.batchPairsMax,
    drainTimeoutMs: config.drainTimeoutMs,
    untilSchemaFits,
    observer,
  });
  // Other workers, of the version that the schema is for, then get the jobs.
  monitor.schemaWatch.onChange(async ({ state }) => {
    await (state === 'fits' ? worker.resume() : worker.pause());
  });
  const catchUp = startCatchUp({
    pool,
    pairsMax: config.batchPairsMax,
    pollMinMs: config.catchUpPollMinMs,
    pollMaxMs: config.catchUpPollMaxMs,
    // Only where events are arriving does a mark wait a little for the event of the same change,
    // so that both together cost one recalculation.
    graceMs: () => (worker.sinceLastEventMs() < EVENTS_ARRIVING_MS ? config.catchUpGraceMs : 0),
    untilSchemaFits,
    observer,
  });
  const sweeps =
    config.sweepMode === 'off'
      ? null
      : startSweeps({
          pool,
          mode: config.sweepMode,
          intervalMs: config.sweepIntervalMs,
          pairsMax: config.batchPairsMax,
          untilSchemaFits,
          observer,
        });
  return {
    async stop() {
      await Promise.all([worker.stop(), catchUp.stop(), sweeps?.stop()]);
    },
  };
}
