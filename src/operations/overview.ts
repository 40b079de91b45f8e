import type { Sweep, SweepMode } from '../recalculation/sweep-record.ts';
import type { QueueState } from './queue-state.ts';
import type { Reading } from './sampled.ts';
import type { SchemaFit } from './schema-watch.ts';
import type { FailuresNow, LagNow, Vitals } from './vitals.ts';
import type { WorkRates } from './work-rates.ts';

/** How things stand at one moment. */
export interface Overview {
  readonly at: Date;
  readonly backend: 'redis' | 'postgres';
  readonly sweepMode: SweepMode | 'off';
  readonly sweepIntervalMs: number;
  readonly lag: Reading<LagNow>;
  readonly failures: Reading<FailuresNow>;
  readonly sweeps: Reading<readonly Sweep[]>;
  readonly queue: Reading<QueueState>;
  readonly schema: Reading<SchemaFit>;
  readonly rates: WorkRates;
  /** Milliseconds since this process took an event, or since it began. */
  readonly sinceLastEventMs: number;
  /** What of this process stands still; null where nothing does. */
  readonly standsStill: string | null;
}

export type OverviewOfProcess = Pick<
  Overview,
  'backend' | 'sweepMode' | 'sweepIntervalMs' | 'rates' | 'sinceLastEventMs' | 'standsStill'
>;

export async function readOverview(
  vitals: Vitals,
  ofProcess: () => OverviewOfProcess,
): Promise<Overview> {
  const [lag, failures, sweeps, queue, schema] = await Promise.all([
    vitals.lag(),
    vitals.failures(),
    vitals.sweeps(),
    vitals.queue(),
    vitals.schema(),
  ]);
  return { at: new Date(), lag, failures, sweeps, queue, schema, ...ofProcess() };
}
