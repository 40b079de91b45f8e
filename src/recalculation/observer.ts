import type { PairResult } from './pairs.ts';
import type { SweptChunk } from './sweep.ts';

/** What asked for a recalculation. */
export type Cause = 'event' | 'mark' | 'sweep';

/** Told of the work as it is done, by those who do it; logs and metrics are made of it elsewhere. */
export interface Observer {
  /** A batch of pairs was recalculated and committed. */
  batch?(cause: Cause, results: readonly PairResult[], durationMs: number): void;
  /** A gift event was served, or refused for good; `name` is what its producer wrote. */
  event?(name: string, outcome: 'completed' | 'failed', durationMs: number): void;
  /** Catch-up has looked at the marks, and looks again after `nextLookMs`. */
  look?(nextLookMs: number): void;
  /** A job that nobody can read was set aside: failed for good, without being served. */
  unreadable?(jobId: string, reason: string): void;
  /** PostgreSQL did not do what was asked; it is asked again after `delayMs`. */
  retry?(cause: Cause, error: unknown, attempt: number, delayMs: number): void;
  /** A chunk of a sweep was compared and committed, the last one with the sweep's end. */
  sweep?(chunk: SweptChunk): void;
  /** The queue's connection or BullMQ itself reported an error; it goes on by itself. */
  queueError?(error: Error): void;
}
