import { pino } from 'pino';
import { type App, startApp } from '../../src/app.ts';
import { loadConfig } from '../../src/config.ts';
import type { QueueConnection } from '../../src/queue.ts';
import type { TestDatabase } from './servers.ts';

export const CREDENTIALS = { user: 'operator', password: 'only for the tests' };

export interface TestApp extends App {
  readonly url: string;
  /** The lines of its log. */
  readonly log: readonly string[];
}

/** All of `gift-budgets start` in this process, with its pages on a port of their own. */
export async function openApp(
  database: TestDatabase,
  queue: QueueConnection,
  env: NodeJS.ProcessEnv = {},
): Promise<TestApp> {
  const log: string[] = [];
  const logger = pino({ level: 'warn' }, { write: (line: string) => log.push(line) });
  const config = loadConfig({ GIFT_BUDGETS_DASHBOARD_PORT: '0', ...env });
  const { url, pool } = database.worker;
  const stores = {
    database: { ...database, pool },
    queue,
    databaseUrl: url,
    embedded: false,
    close,
  };
  const app = await startApp(config, stores, logger);
  return { ...app, url: app.pages!.url, log };
}

async function close(): Promise<void> {}

export const WITH_CREDENTIALS = {
  GIFT_BUDGETS_DASHBOARD_USER: CREDENTIALS.user,
  GIFT_BUDGETS_DASHBOARD_PASSWORD: CREDENTIALS.password,
};

export function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
}
