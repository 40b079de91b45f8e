import type { Pair } from '../events/contract.ts';
import { type PairResult, pairsByKey } from './pairs.ts';

/** Recalculates distinct pairs; resolves after the commit that covers them, in their order. */
export type Recalculate = (pairs: readonly Pair[]) => Promise<readonly PairResult[]>;

type PairsByKey = ReadonlyMap<string, Pair>;

interface Request {
  readonly pairs: PairsByKey;
  readonly resolve: (results: PairResult[]) => void;
  readonly reject: (error: unknown) => void;
}

/** Requests that are served by one recalculation, and their pairs by key. */
interface Batch {
  readonly requests: readonly Request[];
  readonly pairs: PairsByKey;
}

/**
 * How many batches may be under way. One leaves the processor of the database idle while ours
 * works, and the other way round: 33,000 pairs/s with one, 61,000 with two, 57,000 with three (two
 * processors, median of three rounds).
 */
const BATCHES_MAX = 2;

/**
 * Shares recalculations among callers that ask at the same time, the way a database shares one
 * flush among commits: while a batch is under way requests gather, and the next batch, with all
 * that has gathered, leaves when it returns; earlier only if it is full. No timer: alone, a
 * request leaves at once; under load, batches grow by themselves. A fixed window of 2 ms reached
 * about half the throughput.
 *
 * No two batches that are under way hold the same pair: so those of one process never contend for
 * it, and a request which arrives while its pair is being summed gets a sum of its own, later one.
 */
export class RecalculationBatcher {
  readonly #recalculate: Recalculate;
  readonly #pairsMax: number;
  #waiting: Request[] = [];
  #waitingPairs = 0;
  #batches = 0;
  /** The keys of all pairs that are being recalculated. */
  readonly #underWay = new Set<string>();

  /** @param pairsMax the most distinct pairs of one batch. */
  constructor(recalculate: Recalculate, pairsMax: number) {
    this.#recalculate = recalculate;
    this.#pairsMax = pairsMax;
  }

  /**
   * @param pairs any number of pairs; more than one batch holds are spread over several.
   * @returns one result per distinct pair, once all are committed.
   */
  async recalculate(pairs: readonly Pair[]): Promise<PairResult[]> {
    const distinct = pairsByKey(pairs);
    if (distinct.size <= this.#pairsMax) return await this.#enqueue(distinct);
    const entries = [...distinct];
    const results: Promise<PairResult[]>[] = [];
    for (let from = 0; from < entries.length; from += this.#pairsMax) {
      results.push(this.#enqueue(new Map(entries.slice(from, from + this.#pairsMax))));
    }
    return (await Promise.all(results)).flat();
  }

  #enqueue(pairs: PairsByKey): Promise<PairResult[]> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ pairs, resolve, reject });
      this.#waitingPairs += pairs.size;
      const isFull = this.#waitingPairs >= this.#pairsMax;
      if (this.#batches < (isFull ? BATCHES_MAX : 1)) void this.#runBatches();
    });
  }

  /** Batch after batch, until nothing is waiting that another batch does not hold up. */
  async #runBatches(): Promise<void> {
    this.#batches += 1;
    for (;;) {
      // One turn of the event loop lets the jobs that were fetched together travel together.
      await new Promise(setImmediate);
      const batch = this.#takeBatch();
      if (batch.requests.length === 0) break;
      await this.#runBatch(batch);
    }
    this.#batches -= 1;
  }

  async #runBatch({ requests, pairs }: Batch): Promise<void> {
    const keys = [...pairs.keys()];
    for (const key of keys) this.#underWay.add(key);
    try {
      const results = await this.#recalculate([...pairs.values()]);
      const byKey = new Map(keys.map((key, place) => [key, results[place]!]));
      for (const request of requests) {
        request.resolve(Array.from(request.pairs.keys(), (key) => byKey.get(key)!));
      }
    } catch (error) {
      for (const request of requests) request.reject(error);
    } finally {
      for (const key of keys) this.#underWay.delete(key);
    }
  }

  /**
   * Takes requests in order of arrival while their distinct pairs fit in one batch. One that has a
   * pair under way stays, and so do later ones that share a pair with it: else a large request
   * could wait for ever.
   */
  #takeBatch(): Batch {
    const requests: Request[] = [];
    const left: Request[] = [];
    const pairs = new Map<string, Pair>();
    const held = new Set(this.#underWay);
    for (const [place, request] of this.#waiting.entries()) {
      const keys = [...request.pairs.keys()];
      if (keys.some((key) => held.has(key))) {
        left.push(request);
        for (const key of keys) held.add(key);
        continue;
      }
      const added = keys.filter((key) => !pairs.has(key)).length;
      if (requests.length > 0 && pairs.size + added > this.#pairsMax) {
        left.push(...this.#waiting.slice(place));
        break;
      }
      for (const [key, pair] of request.pairs) pairs.set(key, pair);
      requests.push(request);
    }
    this.#waiting = left;
    for (const request of requests) this.#waitingPairs -= request.pairs.size;
    return { requests, pairs };
  }
}
