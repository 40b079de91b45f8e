import type { ChangedPair, PairInput } from './client.ts';
import { type GiftEventName, isId } from './contract.ts';

/**
 * The pairs whose total may have changed, each once: what a transaction has to tell of when it is
 * committed. It never throws and never grows without bound, because it stands in the way of somebody's
 * own work; what it does not take is counted, and is the marks' to tell.
 */
export class ChangedPairs {
  readonly #pairsMax: number;
  readonly #pairs = new Map<string, ChangedPair>();
  #dropped = 0;
  #unnamed = 0;

  constructor(pairsMax: number) {
    this.#pairsMax = pairsMax;
  }

  get size(): number {
    return this.#pairs.size;
  }

  /** How many were not taken because there were too many. */
  get dropped(): number {
    return this.#dropped;
  }

  /** How many were not taken because they name no pair. */
  get unnamed(): number {
    return this.#unnamed;
  }

  /** A gift was assigned to these pairs. */
  giftAssigned(pairs: Iterable<PairInput>): void {
    this.add('gift.assigned', pairs);
  }

  /** A gift was taken from these pairs. */
  giftUnassigned(pairs: Iterable<PairInput>): void {
    this.add('gift.unassigned', pairs);
  }

  /** The price of a gift changed; these pairs have it. */
  giftRepriced(pairs: Iterable<PairInput>): void {
    this.add('gift.repriced', pairs);
  }

  /** A gift was moved between pairs. Both totals changed, so both sides are named. */
  giftMoved(from: Iterable<PairInput>, to: Iterable<PairInput>): void {
    this.add('gift.moved', from);
    this.add('gift.moved', to);
  }

  add(name: GiftEventName, pairs: Iterable<PairInput>): void {
    for (const pair of pairs) {
      if (isId(pair.personId) && isId(pair.occasionId)) this.#take({ name, pair });
      else this.#unnamed += 1;
    }
  }

  /** A change whose pair nobody can tell. */
  addUnnamed(): void {
    this.#unnamed += 1;
  }

  addAll(others: ChangedPairs): void {
    this.#dropped += others.#dropped;
    this.#unnamed += others.#unnamed;
    for (const changed of others.#pairs.values()) this.#take(changed);
  }

  /** Takes out those that came first. */
  takeFirst(count: number): ChangedPair[] {
    const first = [...this.#pairs.entries().take(count)];
    for (const [key] of first) this.#pairs.delete(key);
    return first.map(([, changed]) => changed);
  }

  /** Counts those that are still here as dropped. */
  dropRest(): void {
    this.#dropped += this.#pairs.size;
    this.#pairs.clear();
  }

  #take(changed: ChangedPair): void {
    const key = `${changed.pair.personId}-${changed.pair.occasionId}`;
    if (this.#pairs.has(key) || this.#pairs.size < this.#pairsMax) this.#pairs.set(key, changed);
    else this.#dropped += 1;
  }
}
