import { isatty } from 'node:tty';
import { destination, type Logger, pino, stdSerializers } from 'pino';
import { PinoPretty } from 'pino-pretty';

const STANDARD_ERROR = 2;

/**
 * A logger that writes to standard error at once, so that nothing is lost at the end: JSON lines
 * for programs, and readable ones on a terminal.
 */
export function createLogger(level: string, forPeople = isatty(STANDARD_ERROR)): Logger {
  const options = { name: 'gift-budgets', level, serializers: { err: serializeError } };
  return pino(
    options,
    forPeople
      ? PinoPretty({ destination: STANDARD_ERROR, sync: true, ignore: 'pid,hostname,name' })
      : destination({ fd: STANDARD_ERROR, sync: true }),
  );
}

/**
 * What tells people of an error, and of its causes, and no more: ioredis has the command that failed in
 * a field of its errors, with its arguments, and those of AUTH are the password.
 */
function serializeError(error: Error & { code?: string }): object {
  const { type, message, stack } = stdSerializers.err(error);
  return { type, message, ...(error.code !== undefined && { code: error.code }), stack };
}
