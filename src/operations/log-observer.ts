import type { Logger } from 'pino';
import { countOutcomes } from '../recalculation/pairs.ts';
import type { Observer } from '../recalculation/observer.ts';

/** A queue without its server repeats its error at every try; one line in this time is enough. */
const QUEUE_ERROR_INTERVAL_MS = 5_000;

/** Writes the work to the log: a line per batch, the pairs at debug, what could not be done. */
export function logObserver(log: Logger): Observer {
  let queueErrorLoggedAt = -Infinity;
  return {
    batch(cause, results, durationMs) {
      const counts = { pairs: results.length, ...countOutcomes(results) };
      log.info({ cause, ...counts, durationMs: Math.round(durationMs) }, 'batch');
      const isDebug = log.isLevelEnabled('debug');
      for (const result of results) {
        if (result.outcome === 'failed') log.error({ cause, ...result }, 'total not stored');
        else if (isDebug) log.debug({ cause, ...result }, 'pair');
      }
    },
    event(name, outcome, durationMs) {
      log.debug({ name, outcome, durationMs: Math.round(durationMs) }, 'event');
    },
    unreadable(jobId, reason) {
      log.error({ jobId, reason }, 'job set aside');
    },
    sweep({ sweep, findings }) {
      for (const finding of findings) log.warn({ sweep: sweep.id, ...finding }, 'drift');
      if (sweep.finishedAt === null) return;
      const { id, mode, checked, drifted, repaired } = sweep;
      const durationMs = sweep.finishedAt.getTime() - sweep.startedAt.getTime();
      log.info({ sweep: id, mode, checked, drifted, repaired, durationMs }, 'sweep finished');
    },
    retry(cause, error, attempt, delayMs) {
      log.warn({ cause, err: error, attempt, delayMs: Math.round(delayMs) }, 'trying again');
    },
    queueError(error) {
      const now = performance.now();
      if (now - queueErrorLoggedAt < QUEUE_ERROR_INTERVAL_MS) return;
      queueErrorLoggedAt = now;
      log.warn({ err: error }, 'queue error');
    },
  };
}
