import { isatty } from 'node:tty';
import { destination, type Logger, pino } from 'pino';
import { PinoPretty } from 'pino-pretty';

const STANDARD_ERROR = 2;

/**
 * A logger that writes to standard error at once, so that nothing is lost at the end: JSON lines
 * for programs, and readable ones on a terminal.
 */
export function createLogger(level: string, forPeople = isatty(STANDARD_ERROR)): Logger {
  const options = { name: 'gift-budgets', level };
  return pino(
    options,
    forPeople
      ? PinoPretty({ destination: STANDARD_ERROR, sync: true, ignore: 'pid,hostname,name' })
      : destination({ fd: STANDARD_ERROR, sync: true }),
  );
}
