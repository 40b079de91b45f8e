import type { Logger } from 'pino';
import type { Config } from './config.ts';
import { type Dashboard, startDashboard } from './operations/dashboard.ts';
import { logObserver } from './operations/log-observer.ts';
import { openGiftEventsQueue } from './queue.ts';
import { startCatchUp } from './recalculation/catch-up.ts';
import type { Observer } from './recalculation/observer.ts';
import { startSweeps } from './recalculation/sweep-loop.ts';
import { startWorker } from './recalculation/worker.ts';
import type { Stores } from './stores.ts';

export interface App {
  readonly dashboard: Dashboard | null;
  /** Stops the parts in the reverse order of their start; the stores stay open. */
  stop(): Promise<void>;
}

export interface AppOptions {
  readonly dashboard?: boolean;
  readonly observer?: Observer;
}

/** An event is expected to come with its mark while the last one is no older than this. */
const EVENTS_ARRIVING_MS = 1_000;

/**
 * Starts all that keeps the totals right: the worker for the gift events, the catch-up for the
 * marks, the sweeps for what goes round both, and the page to look at them.
 */
export async function startApp(
  config: Config,
  stores: Stores,
  log: Logger,
  options: AppOptions = {},
): Promise<App> {
  const { pool } = stores.database;
  const observer = options.observer ?? logObserver(log);
  const worker = await startWorker({
    pool,
    queue: stores.queue,
    concurrency: config.workerConcurrency,
    pairsMax: config.batchPairsMax,
    drainTimeoutMs: config.drainTimeoutMs,
    observer,
  });
  const catchUp = startCatchUp({
    pool,
    pairsMax: config.batchPairsMax,
    pollMinMs: config.catchUpPollMinMs,
    pollMaxMs: config.catchUpPollMaxMs,
    // Only where events are arriving does a mark wait a little for the event of the same change,
    // so that both together cost one recalculation.
    graceMs: () => (worker.sinceLastEventMs() < EVENTS_ARRIVING_MS ? config.catchUpGraceMs : 0),
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
          observer,
        });
  const stopWorking = async (): Promise<void> => {
    await Promise.all([worker.stop(), catchUp.stop(), sweeps?.stop()]);
  };
  if (options.dashboard === false) return { dashboard: null, stop: stopWorking };

  const open = openGiftEventsQueue(stores.queue, (error) => observer.queueError?.(error));
  const closeAll = async (): Promise<void> => {
    await open.close();
    await stopWorking();
  };
  try {
    const dashboard = await startDashboard(open.queue, config.dashboardHost, config.dashboardPort);
    return {
      dashboard,
      async stop() {
        await dashboard.stop();
        await closeAll();
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}
