import type { Logger } from 'pino';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../queue.ts';
import type { Observer } from '../recalculation/observer.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { tellAll } from './observers.ts';
import { createProgress, type Progress } from './progress.ts';
import { describeMisfit, type SchemaWatch, startSchemaWatch } from './schema-watch.ts';
import { createVitals, createVitalsPool, type Vitals } from './vitals.ts';
import { createWorkRates, type WorkRates } from './work-rates.ts';

/** All that looks at the work, and none that does it. */
export interface Monitor {
  /** To be told by the work. */
  readonly observer: Observer;
  readonly schemaWatch: SchemaWatch;
  readonly backend: QueueConnection['backend'];
  readonly queue: OpenQueue;
  readonly vitals: Vitals;
  readonly metrics: Metrics;
  readonly progress: Progress;
  rates(): WorkRates;
  /** Milliseconds since this process took an event, or since it began. */
  sinceLastEventMs(): number;
  stop(): Promise<void>;
}

export interface MonitorOptions {
  readonly databaseUrl: string;
  /** Whether a pooler in transaction mode stands before the server. */
  readonly pooled: boolean;
  readonly queue: QueueConnection;
  /** The names of the migrations that this version needs. */
  readonly knownMigrations: readonly string[];
  /** Told before the monitor's own. */
  readonly observer: Observer;
  readonly log: Logger;
}

export async function createMonitor(options: MonitorOptions): Promise<Monitor> {
  const { log } = options;
  const pool = createVitalsPool(options.databaseUrl, { pooled: options.pooled });
  const schemaWatch = await startSchemaWatch(pool, options.knownMigrations);
  schemaWatch.onChange((fit) => {
    const misfit = describeMisfit(fit);
    if (misfit === null) log.info('the schema fits: work goes on');
    else {
      const { problem, todo } = misfit;
      log.error({ problem, todo }, 'the schema does not fit: work waits');
    }
  });
  const queue = openGiftEventsQueue(options.queue, (error) => observer.queueError?.(error));
  const vitals = createVitals({ db: pool, queue, lookAtSchema: schemaWatch.look });
  const progress = createProgress(() => schemaWatch.fit().state !== 'fits');
  const metrics = createMetrics(vitals, () => progress.whatStandsStill() === null);
  const rates = createWorkRates();
  let lastEventAt = performance.now();
  const observer = tellAll([
    options.observer,
    metrics.observer,
    progress.observer,
    rates.observer,
    schemaWatch.observer,
    { event: () => (lastEventAt = performance.now()) },
  ]);
  return {
    observer,
    schemaWatch,
    backend: options.queue.backend,
    queue,
    vitals,
    metrics,
    progress,
    rates: rates.read,
    sinceLastEventMs: () => performance.now() - lastEventAt,
    async stop() {
      await schemaWatch.stop();
      await queue.close();
      await pool.end();
    },
  };
}
