/** A way to do the work, timed in short rounds that alternate with the other ways. */
export interface Side {
  readonly name: string;
  /** Does `units` units of work; what it needs is prepared by `prepare`, which is not timed. */
  readonly run: () => Promise<number>;
}

export interface Measured {
  readonly name: string;
  /** Median over the rounds, in units per second. */
  readonly perSecond: number;
}

/**
 * Runs every side once per round, in an order that turns with the round, so that a noisy moment of
 * a shared machine hits all sides alike; the medians are what counts, and only their ratios.
 */
export async function measureAlternating(
  sides: readonly Side[],
  rounds: number,
  prepare: () => Promise<void>,
): Promise<Measured[]> {
  const rates = new Map(sides.map((side) => [side.name, [] as number[]]));
  for (let round = 0; round < rounds; round += 1) {
    for (let turn = 0; turn < sides.length; turn += 1) {
      const side = sides[(round + turn) % sides.length]!;
      await prepare();
      const startedAt = performance.now();
      const units = await side.run();
      rates.get(side.name)!.push((units * 1_000) / (performance.now() - startedAt));
    }
  }
  return sides.map(({ name }) => ({ name, perSecond: median(rates.get(name)!) }));
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Prints the rates, then `bench NAME: key=ratio … ok`, or `… falls short`. */
export function report(
  name: string,
  measured: readonly Measured[],
  ratios: readonly { readonly key: string; readonly value: number; readonly atLeast: number }[],
): void {
  for (const side of measured) {
    console.log(
      `${side.name.padEnd(24)}${Math.round(side.perSecond).toLocaleString('en').padStart(12)} per second`,
    );
  }
  const met = ratios.every(({ value, atLeast }) => value >= atLeast);
  const shown = ratios.map(
    ({ key, value, atLeast }) => `${key}=${value.toFixed(2)} (at least ${atLeast})`,
  );
  console.log(`bench ${name}: ${shown.join(' ')} ${met ? 'ok' : 'falls short'}`);
}
