/** A way to do the work, timed in short rounds that alternate with those of the other ways. */
export interface Side {
  readonly name: string;
  /** What a round of it needs; not timed. */
  readonly prepare?: () => Promise<void>;
  /** Does a round of work, and says how many units that was. */
  readonly run: () => Promise<number>;
}

export interface Measured {
  readonly name: string;
  /** Units per second, of each round. */
  readonly rates: readonly number[];
}

/** A figure that decides whether a benchmark is met; one without a bound is only reported. */
export interface Figure {
  readonly key: string;
  readonly value: number;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** What a benchmark found; its table is printed line by line above the figures. */
export interface Outcome {
  readonly table: readonly string[];
  readonly figures: readonly Figure[];
}

/** One benchmark: builds its data on servers of its own, checks the totals, and cleans up. */
export type Bench = () => Promise<Outcome>;

/**
 * Runs every side once per round, in an order that turns with the round, so that a noisy moment of
 * a shared machine hits all sides alike. Only ratios of what was measured in one run mean anything.
 */
export async function measureAlternating(
  sides: readonly Side[],
  rounds: number,
): Promise<Measured[]> {
  const measured = sides.map(({ name }) => ({ name, rates: [] as number[] }));
  for (let round = 0; round < rounds; round += 1) {
    for (let turn = 0; turn < sides.length; turn += 1) {
      const place = (round + turn) % sides.length;
      const { prepare, run } = sides[place]!;
      await prepare?.();
      const startedAt = performance.now();
      const units = await run();
      measured[place]!.rates.push((units * 1_000) / (performance.now() - startedAt));
    }
  }
  return measured;
}

/** The median, over the rounds, of what one side did in terms of the other in the same round. */
export function ratioOf(side: Measured, other: Measured): number {
  return median(side.rates.map((rate, round) => rate / other.rates[round]!));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** @param fraction 0.5 for the median, 0.99 for p99. */
export function quantile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const position = (sorted.length - 1) * fraction;
  const [below, above] = [sorted[Math.floor(position)]!, sorted[Math.ceil(position)]!];
  return below + (above - below) * (position - Math.floor(position));
}

/** A line per side: the median rate, and the slowest and the fastest round. */
export function rateTable(measured: readonly Measured[], unit: string): string[] {
  const heading = `${''.padEnd(30)}${'median'.padStart(10)}${'slowest'.padStart(10)}${'fastest'.padStart(10)}`;
  const lines = measured.map(({ name, rates }) => {
    const shown = [median(rates), Math.min(...rates), Math.max(...rates)];
    return name.padEnd(30) + shown.map((rate) => whole(rate).padStart(10)).join('');
  });
  return [`${heading}  ${unit}, ${measured[0]!.rates.length} rounds`, ...lines];
}

export function whole(value: number): string {
  return Math.round(value).toLocaleString('en');
}
