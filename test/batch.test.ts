import { expect, it } from 'vitest';
import type { Pair } from '../src/events/contract.ts';
import { type Recalculate, RecalculationBatcher } from '../src/recalculation/batch.ts';
import type { PairResult } from '../src/recalculation/pairs.ts';

/** A recalculation whose batches are under way until the test lets them return. */
class Batches {
  readonly begun: (readonly Pair[])[] = [];
  readonly #open: PromiseWithResolvers<void>[] = [];
  #arrival = Promise.withResolvers<void>();

  readonly recalculate: Recalculate = async (pairs) => {
    const returns = Promise.withResolvers<void>();
    this.begun.push(pairs);
    this.#open.push(returns);
    this.#arrival.resolve();
    await returns.promise;
    return pairs.map((pair) => resultOf(pair));
  };

  async untilBegun(count: number): Promise<void> {
    while (this.begun.length < count) {
      this.#arrival = Promise.withResolvers();
      await this.#arrival.promise;
    }
  }

  commit(batch: number): void {
    this.#open[batch]!.resolve();
  }

  fail(batch: number, error: Error): void {
    this.#open[batch]!.reject(error);
  }
}

const pairOf = (personId: number): Pair => ({ personId: String(personId), occasionId: '1' });
const pairsOf = (from: number, to: number): Pair[] =>
  Array.from({ length: to - from + 1 }, (_, place) => pairOf(from + place));
const resultOf = (pair: Pair): PairResult => ({ ...pair, outcome: 'busy' });

it('what asks at the same time shares one batch, each pair in it once', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 500);
  const asked = [batcher.recalculate([pairOf(1), pairOf(2)]), batcher.recalculate([pairOf(2)])];
  await batches.untilBegun(1);
  expect(batches.begun).toEqual([[pairOf(1), pairOf(2)]]);
  batches.commit(0);
  expect(await Promise.all(asked)).toEqual([
    [resultOf(pairOf(1)), resultOf(pairOf(2))],
    [resultOf(pairOf(2))],
  ]);
});

it('the next batch leaves when the one before returns, with all that has gathered', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 500);
  const first = batcher.recalculate([pairOf(1)]);
  await batches.untilBegun(1);
  const later = [1, 2, 3].map(async (id) => await batcher.recalculate([pairOf(id)]));
  await new Promise(setImmediate);
  expect(batches.begun).toHaveLength(1);
  batches.commit(0);
  await first;
  await batches.untilBegun(2);
  // Pair 1 again: its second request came while it was being summed, so it gets a later sum.
  expect(batches.begun[1]).toEqual(pairsOf(1, 3));
  batches.commit(1);
  await Promise.all(later);
  expect(batches.begun).toHaveLength(2);
});

it('nobody is told before the batch of theirs has returned', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 500);
  let told = false;
  const asked = batcher.recalculate([pairOf(1)]).then(() => (told = true));
  await batches.untilBegun(1);
  await new Promise(setImmediate);
  expect(told).toBe(false);
  batches.commit(0);
  await asked;
});

it('no batch holds more pairs than it may; who asks for more gets them all in one answer', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 5);
  const asked = [batcher.recalculate(pairsOf(1, 12)), batcher.recalculate(pairsOf(13, 15))];
  for (let batch = 0; batch < 3; batch += 1) {
    await batches.untilBegun(batch + 1);
    batches.commit(batch);
  }
  const [twelve, three] = await Promise.all(asked);
  expect(twelve).toEqual(pairsOf(1, 12).map(resultOf));
  expect(three).toEqual(pairsOf(13, 15).map(resultOf));
  expect(batches.begun.map(({ length }) => length)).toEqual([5, 5, 5]);
});

it('an error is told to those of its batch alone, and the next batch leaves all the same', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 500);
  const first = batcher.recalculate([pairOf(1)]);
  const told = expect(first).rejects.toThrow('no connection');
  await batches.untilBegun(1);
  const second = batcher.recalculate([pairOf(2)]);
  batches.fail(0, new Error('no connection'));
  await told;
  await batches.untilBegun(2);
  batches.commit(1);
  expect(await second).toEqual([resultOf(pairOf(2))]);
});

it('a second batch leaves beside the first one only when it is full', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 5);
  const asked = [batcher.recalculate(pairsOf(1, 1))];
  await batches.untilBegun(1);
  asked.push(batcher.recalculate(pairsOf(2, 5)));
  await new Promise(setImmediate);
  expect(batches.begun).toHaveLength(1);
  asked.push(batcher.recalculate(pairsOf(6, 6)));
  await batches.untilBegun(2);
  expect(batches.begun[1]).toEqual(pairsOf(2, 6));
  asked.push(batcher.recalculate(pairsOf(7, 11)));
  await new Promise(setImmediate);
  expect(batches.begun).toHaveLength(2);
  batches.commit(1);
  await batches.untilBegun(3);
  batches.commit(2);
  batches.commit(0);
  await Promise.all(asked);
});

it('a pair that is being recalculated is in no other batch, and later requests do not overtake', async () => {
  const batches = new Batches();
  const batcher = new RecalculationBatcher(batches.recalculate, 5);
  const first = batcher.recalculate([pairOf(1)]);
  await batches.untilBegun(1);
  const held = batcher.recalculate([pairOf(1), pairOf(2)]);
  const behindIt = batcher.recalculate([pairOf(2)]);
  const others = batcher.recalculate(pairsOf(3, 7));
  await batches.untilBegun(2);
  expect(batches.begun[1]).toEqual(pairsOf(3, 7));
  batches.commit(0);
  await batches.untilBegun(3);
  expect(batches.begun[2]).toEqual([pairOf(1), pairOf(2)]);
  batches.commit(1);
  batches.commit(2);
  await Promise.all([first, held, behindIt, others]);
  expect(batches.begun).toHaveLength(3);
});
