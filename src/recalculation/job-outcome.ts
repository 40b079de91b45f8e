import { countOutcomes, type OutcomeCounts, type PairResult } from './pairs.ts';

/** How many pairs a job's return value shows; the counts cover all. */
const PAIRS_SHOWN_MAX = 10;

/**
 * What a gift event's job returns, small enough to read on a dashboard. Of one pair: what became of
 * it; the job's data name it. Of any other number: how many pairs had which outcome (outcomes that
 * did not occur are left out), and the first ten of them.
 *
 * That of one pair has at most 64 characters (totals below a million), because a job that holds a
 * longer text is stored by Redis in another form: with the pair named once more, jobs that did nothing
 * else were completed at 0.85 of the rate of those that returned nothing, without it at 0.99.
 */
export type JobOutcome =
  | {
      readonly outcome: PairResult['outcome'];
      readonly before?: string;
      readonly after?: string;
    }
  | (OutcomeCounts & { readonly pairs: readonly PairResult[] });

export function jobOutcome(results: readonly PairResult[]): JobOutcome {
  if (results.length === 1) {
    const { personId: _, occasionId: __, ...outcome } = results[0]!;
    return outcome;
  }
  return { ...countOutcomes(results), pairs: results.slice(0, PAIRS_SHOWN_MAX) };
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
