import type { Observer } from '../recalculation/observer.ts';

/** What this process did per second, over the last ten seconds. */
export interface WorkRates {
  readonly eventsPerSecond: number;
  readonly pairsPerSecond: number;
}

const WINDOW_SECONDS = 10;

export function createWorkRates(): { readonly observer: Observer; readonly read: () => WorkRates } {
  const events = createRate();
  const pairs = createRate();
  return {
    observer: {
      event: () => events.add(1),
      batch: (_cause, results) => pairs.add(results.length),
    },
    read: () => ({ eventsPerSecond: events.perSecond(), pairsPerSecond: pairs.perSecond() }),
  };
}

/** Counts in slots of a second each, so that it costs the same however much is counted. */
function createRate() {
  const slots = Array.from({ length: WINDOW_SECONDS }, () => ({ second: -Infinity, count: 0 }));
  const thisSecond = (): number => Math.floor(performance.now() / 1_000);
  return {
    add(count: number): void {
      const second = thisSecond();
      const slot = slots[second % WINDOW_SECONDS]!;
      if (slot.second !== second) Object.assign(slot, { second, count: 0 });
      slot.count += count;
    },
    perSecond(): number {
      const since = thisSecond() - WINDOW_SECONDS;
      const recent = slots.filter(({ second }) => second > since);
      return recent.reduce((sum, { count }) => sum + count, 0) / WINDOW_SECONDS;
    },
  };
}
