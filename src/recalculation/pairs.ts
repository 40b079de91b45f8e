import type { Pair } from '../events/contract.ts';

/** What a recalculation did with one pair. Totals are decimal strings with two places. */
export type PairResult = Pair &
  (
    | { readonly outcome: 'changed' | 'unchanged'; readonly before: string; readonly after: string }
    /** Somebody else holds the budget row; a mark leaves the pair to catch-up. */
    | { readonly outcome: 'busy' }
    /** There is no such budget, so there is no total to keep. */
    | { readonly outcome: 'missing' }
    /** The sum cannot be stored; listed in `recalculation_failures`. */
    | { readonly outcome: 'failed'; readonly reason: string }
  );

export type OutcomeCounts = Partial<Record<PairResult['outcome'], number>>;

/** How many pairs had which outcome; outcomes that did not occur are left out. */
export function countOutcomes(results: readonly PairResult[]): OutcomeCounts {
  const counts: OutcomeCounts = {};
  for (const { outcome } of results) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

/** One string per pair, for maps and deduplication. */
export function pairKey(pair: Pair): string {
  return `${pair.personId}-${pair.occasionId}`;
}

/** The pairs without repetition by their keys, in order of first appearance. */
export function pairsByKey(pairs: Iterable<Pair>): Map<string, Pair> {
  const distinct = new Map<string, Pair>();
  for (const pair of pairs) distinct.set(pairKey(pair), pair);
  return distinct;
}

/**
 * The pairs as two parallel arrays, the form in which `unnest` takes them, written as PostgreSQL
 * writes them: the driver would look into each id for characters to escape.
 */
export function pairColumns(pairs: readonly Pair[]): [personIds: string, occasionIds: string] {
  return [
    `{${pairs.map((pair) => pair.personId).join()}}`,
    `{${pairs.map((pair) => pair.occasionId).join()}}`,
  ];
}

/** A column of an answer, as `string_agg` puts it together: empty where there was no row. */
export function column(joined: unknown): string[] {
  return joined === null ? [] : (joined as string).split(',');
}
