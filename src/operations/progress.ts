import type { Observer } from '../recalculation/observer.ts';

export interface Progress {
  readonly observer: Observer;
  /** Says what stands still; null while this process makes progress. */
  whatStandsStill(): string | null;
}

/** A look may take this long beyond its time: a pass, a walk, and a server that is slow. */
const LATE_MAX_MS = 30_000;

/**
 * Whether this process does its work, as opposed to: whether its servers answer. Catch-up always
 * has a next look, or a next try where PostgreSQL is away, and says when; if that does not come,
 * a connection hangs that nobody will end, and only a restart helps.
 *
 * @param isHeld whether the work waits on purpose, for the schema to fit.
 */
export function createProgress(
  isHeld: () => boolean,
  now: () => number = () => performance.now(),
): Progress {
  let seenAt = now();
  let expectedBy = seenAt + LATE_MAX_MS;
  const expectWithin = (ms: number): void => {
    seenAt = now();
    expectedBy = seenAt + ms + LATE_MAX_MS;
  };
  return {
    observer: {
      look: expectWithin,
      retry(cause, _error, _attempt, delayMs) {
        if (cause === 'mark') expectWithin(delayMs);
      },
      batch(cause) {
        if (cause === 'mark') expectWithin(0);
      },
    },
    whatStandsStill() {
      if (isHeld()) expectWithin(0);
      if (now() <= expectedBy) return null;
      return `catch-up has not looked at the marks for ${Math.round((now() - seenAt) / 1_000)} s`;
    },
  };
}
