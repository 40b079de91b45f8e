import { collectDefaultMetrics, Counter, Histogram, Registry } from 'prom-client';
import { GIFT_EVENT_NAMES } from '../events/contract.ts';
import type { Observer } from '../recalculation/observer.ts';
import { countOutcomes, type PairResult } from '../recalculation/pairs.ts';
import type { Finding } from '../recalculation/sweep.ts';
import { addGauges } from './gauges.ts';
import type { Vitals } from './vitals.ts';

export interface Metrics {
  readonly observer: Observer;
  readonly contentType: string;
  /** All metrics in Prometheus' text format. */
  text(): Promise<string>;
}

/** From one pair to the most of one recalculation. */
const PAIR_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200, 500];
const SECONDS_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

const EVENT_NAMES: ReadonlySet<string> = new Set(GIFT_EVENT_NAMES);
const OTHER = 'other';
const PAIR_OUTCOMES: readonly PairResult['outcome'][] = [
  'changed',
  'unchanged',
  'busy',
  'missing',
  'failed',
];
const DRIFT_OUTCOMES: readonly Finding['outcome'][] = [
  'reported',
  'repaired',
  'marked',
  'failed',
  'gone',
];

/**
 * The metrics of this process, and of the stores as they are at the moment of asking. Their names
 * and labels are an interface: docs/operating.md has all of them in a table.
 *
 * @param isHealthy whether this process makes progress.
 */
export function createMetrics(vitals: Vitals, isHealthy: () => boolean): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  addGauges(registry, vitals, isHealthy);
  return {
    observer: countWork(registry),
    contentType: registry.contentType,
    text: async () => await registry.metrics(),
  };
}

/** Counters and histograms, told by those who do the work. */
function countWork(registry: Registry): Observer {
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Counter({ name: `gift_budgets_${name}`, help, labelNames, registers });
  const histogram = <Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    buckets: number[],
  ) => new Histogram({ name: `gift_budgets_${name}`, help, labelNames, buckets, registers });

  const events = counter('events_total', 'Gift events served or refused for good.', [
    'name',
    'outcome',
  ]);
  const eventSeconds = histogram(
    'event_duration_seconds',
    'Time from taking a gift event to its end.',
    ['outcome'],
    SECONDS_BUCKETS,
  );
  const pairs = counter('recalculated_pairs_total', 'Pairs recalculated, by what became of them.', [
    'cause',
    'outcome',
  ]);
  const batchPairs = histogram(
    'batch_pairs',
    'Pairs recalculated together.',
    ['cause'],
    PAIR_BUCKETS,
  );
  const batchSeconds = histogram(
    'batch_duration_seconds',
    'Time that a batch took, retries included.',
    ['cause'],
    SECONDS_BUCKETS,
  );
  const retries = counter('retries_total', 'Tries that PostgreSQL did not let succeed.', ['cause']);
  const unreadable = counter('unreadable_jobs_total', 'Jobs set aside unread.', []);
  const queueErrors = counter('queue_errors_total', "Errors of the queue's connection.", []);
  const swept = counter('swept_pairs_total', 'Totals compared with their sums by sweeps.', []);
  const drifted = counter('drifted_pairs_total', 'Drift found, by what became of it.', ['outcome']);

  // A series that begins with its first event shows no increase for it.
  for (const outcome of ['completed', 'failed']) {
    for (const name of [...GIFT_EVENT_NAMES, OTHER]) events.inc({ name, outcome }, 0);
  }
  for (const cause of ['event', 'mark', 'sweep']) retries.inc({ cause }, 0);
  for (const cause of ['event', 'mark']) {
    for (const outcome of PAIR_OUTCOMES) pairs.inc({ cause, outcome }, 0);
  }
  for (const outcome of DRIFT_OUTCOMES) drifted.inc({ outcome }, 0);

  return {
    event(name, outcome, durationMs) {
      // A producer may write any name, and each new label value is a series for ever.
      events.inc({ name: EVENT_NAMES.has(name) ? name : OTHER, outcome });
      eventSeconds.observe({ outcome }, durationMs / 1_000);
    },
    batch(cause, results, durationMs) {
      for (const [outcome, count] of Object.entries(countOutcomes(results))) {
        pairs.inc({ cause, outcome }, count);
      }
      batchPairs.observe({ cause }, results.length);
      batchSeconds.observe({ cause }, durationMs / 1_000);
    },
    retry: (cause) => retries.inc({ cause }),
    unreadable: () => unreadable.inc(),
    queueError: () => queueErrors.inc(),
    sweep({ checked, findings }) {
      swept.inc(checked);
      for (const { outcome } of findings) drifted.inc({ outcome });
    },
  };
}
