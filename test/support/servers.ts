import pg from 'pg';
import { describe, inject } from 'vitest';
import { type Database, openDatabase } from '../../src/database.ts';
import { prepareQueue, type QueueConnection } from '../../src/queue.ts';

export interface TestDatabase extends Database {
  readonly url: string;
}

let databases = 0;

/** A migrated database of its own, dropped by its `close`. */
export async function createTestDatabase({ poolMax = 20 } = {}): Promise<TestDatabase> {
  return await createDatabase(`template ${inject('templateName')}`, poolMax);
}

/** A database without the schema. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  return await createDatabase('template template0');
}

async function createDatabase(from: string, poolMax = 20): Promise<TestDatabase> {
  const serverUrl = inject('postgresUrl');
  const name = inject('templateName').replace('template', `${process.pid}_${(databases += 1)}`);
  await onServer(serverUrl, `create database ${name} ${from}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const database = await openDatabase(url.href, { poolMax });
  return {
    ...database,
    url: url.href,
    async close() {
      await database.close();
      await onServer(serverUrl, `drop database ${name} with (force)`);
    },
  };
}

async function onServer(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(sql);
  await client.end();
}

let queues = 0;

/** Runs a suite once for each place the queue may live in; Redis is skipped where there is none. */
export function describeBackends(
  name: string,
  suite: (open: (database: TestDatabase) => Promise<QueueConnection>) => void,
): void {
  describe(`${name}, queue in PostgreSQL`, () => {
    suite(async ({ url }) => {
      const connection: QueueConnection = { backend: 'postgres', url };
      await prepareQueue(connection);
      return connection;
    });
  });
  const redisUrl = inject('redisUrl');
  describe.skipIf(redisUrl === null)(`${name}, queue in Redis`, () => {
    suite(async () => {
      const prefix = `test-${process.pid}-${(queues += 1)}`;
      return { backend: 'redis', url: redisUrl!, prefix };
    });
  });
}
