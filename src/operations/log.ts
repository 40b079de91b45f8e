import { destination, type Logger, pino } from 'pino';

/** A logger that writes JSON lines to standard error, at once, so that none is lost at the end. */
export function createLogger(level: string): Logger {
  return pino({ name: 'gift-budgets', level }, destination({ fd: 2, sync: true }));
}
