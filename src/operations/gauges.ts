import { Gauge, type Registry } from 'prom-client';
import type { Sweep } from '../recalculation/sweep-record.ts';
import { readReadiness } from './readiness.ts';
import type { Reading } from './sampled.ts';
import type { Vitals } from './vitals.ts';

/**
 * Gauges, read when somebody asks; NaN or left out where they cannot be.
 *
 * @param isHealthy whether this process makes progress.
 */
export function addGauges(registry: Registry, vitals: Vitals, isHealthy: () => boolean): void {
  const gauge = <T>(
    name: string,
    help: string,
    read: () => Promise<Reading<T>>,
    valueOf: (value: T) => number,
  ): void => {
    new Gauge({
      name: `gift_budgets_${name}`,
      help,
      registers: [registry],
      async collect() {
        const { value } = await read();
        this.set(value === undefined ? NaN : valueOf(value));
      },
    });
  };
  gauge('lag_seconds', 'Age of the oldest mark.', vitals.lag, ({ seconds }) => seconds);
  gauge(
    'pending_pairs',
    'Pairs that a mark waits for, counted up to 10000.',
    vitals.lag,
    ({ pendingPairs }) => pendingPairs,
  );
  gauge(
    'recalculation_failures',
    'Pairs whose sum cannot be stored, counted up to 10000.',
    vitals.failures,
    ({ count }) => count,
  );
  gauge(
    'last_sweep_finished_timestamp_seconds',
    'When the last finished sweep ended; NaN where none did.',
    vitals.sweeps,
    (sweeps) => Number(lastFinished(sweeps)?.finishedAt ?? NaN) / 1_000,
  );
  // Of the store, unlike the counter of this process: told also where `repair` found it, or a process
  // that ended before anybody asked it.
  gauge(
    'last_sweep_drifted_pairs',
    'Drift that the last finished sweep found; NaN where none did finish.',
    vitals.sweeps,
    (sweeps) => lastFinished(sweeps)?.drifted ?? NaN,
  );
  addHealthyGauge(registry, isHealthy);
  addQueueGauge(registry, vitals);
  addReadyGauge(registry, vitals);
}

function lastFinished(sweeps: readonly Sweep[]): Sweep | undefined {
  return sweeps.find(({ finishedAt }) => finishedAt !== null);
}

function addHealthyGauge(registry: Registry, isHealthy: () => boolean): void {
  new Gauge({
    name: 'gift_budgets_healthy',
    help: 'Whether this process makes progress: 1 or 0.',
    registers: [registry],
    collect() {
      this.set(isHealthy() ? 1 : 0);
    },
  });
}

function addQueueGauge(registry: Registry, vitals: Vitals): void {
  new Gauge({
    name: 'gift_budgets_queue_jobs',
    help: 'Jobs in the queue by state; left out where the queue does not answer.',
    labelNames: ['state'],
    registers: [registry],
    async collect() {
      const { value } = await vitals.queue();
      this.reset();
      for (const [state, jobs] of Object.entries(value?.jobs ?? {})) this.set({ state }, jobs);
    },
  });
}

function addReadyGauge(registry: Registry, vitals: Vitals): void {
  new Gauge({
    name: 'gift_budgets_ready',
    help: 'Whether a part is as the work needs it: 1 or 0.',
    labelNames: ['part'],
    registers: [registry],
    async collect() {
      for (const [part, problem] of Object.entries(await readReadiness(vitals))) {
        this.set({ part }, problem === null ? 1 : 0);
      }
    },
  });
}
