import type { PairResult } from './pairs.ts';

/** How many pairs a job's return value shows; the counts cover all. */
const PAIRS_SHOWN_MAX = 10;

/**
 * What a gift event's job returns, small enough to read on a dashboard: how many pairs had which
 * outcome (outcomes that did not occur are left out), and the first ten of them.
 */
export interface JobOutcome {
  readonly changed?: number;
  readonly unchanged?: number;
  readonly busy?: number;
  readonly missing?: number;
  readonly pairs: readonly PairResult[];
}

export function jobOutcome(results: readonly PairResult[]): JobOutcome {
  const counts: Partial<Record<PairResult['outcome'], number>> = {};
  for (const { outcome } of results) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return { ...counts, pairs: results.slice(0, PAIRS_SHOWN_MAX) };
}

/** Says which pairs could not be stored and why; null where all could. */
export function describeFailures(results: readonly PairResult[]): string | null {
  const failed = results.filter((result) => result.outcome === 'failed');
  if (failed.length === 0) return null;
  const shown = failed
    .slice(0, PAIRS_SHOWN_MAX)
    .map((pair) => `person ${pair.personId}, occasion ${pair.occasionId}: ${pair.reason}`);
  const more = failed.length - shown.length;
  return `budget_spent not stored for ${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}
