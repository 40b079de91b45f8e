import type { Observer } from '../recalculation/observer.ts';

/** One observer that tells several, in their order. */
export function tellAll(observers: readonly Observer[]): Observer {
  return {
    batch: (...told) => observers.forEach((observer) => observer.batch?.(...told)),
    event: (...told) => observers.forEach((observer) => observer.event?.(...told)),
    look: (...told) => observers.forEach((observer) => observer.look?.(...told)),
    unreadable: (...told) => observers.forEach((observer) => observer.unreadable?.(...told)),
    retry: (...told) => observers.forEach((observer) => observer.retry?.(...told)),
    sweep: (...told) => observers.forEach((observer) => observer.sweep?.(...told)),
    queueError: (...told) => observers.forEach((observer) => observer.queueError?.(...told)),
  };
}
