import pg from 'pg';
import { CommandError } from './context.ts';

const CONNECT_TIMEOUT_MS = 10_000;

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'there is no such host',
};

/**
 * Connects once and for all commands alike, so that a database which is not there is told in plain
 * words and in bounded time: left to itself, pg waits for ever on a server that does not answer.
 *
 * @throws {CommandError} that names host, port and database, but no password.
 */
export async function reachDatabase(url: string): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: 'gift-budgets',
  });
  client.on('error', () => {});
  try {
    await client.connect();
  } catch (error) {
    const { code = '', message, name } = error as Error & { code?: string };
    const where = `database "${client.database}" at ${client.host}:${client.port}`;
    throw new CommandError(
      `cannot connect to the ${where} (DATABASE_URL): ${REASONS[code] ?? (message || code || name)}`,
    );
  } finally {
    await client.end().catch(() => {});
  }
}
