import pg from 'pg';
import { describe, inject } from 'vitest';
import { type Database, openDatabase } from '../../src/database.ts';
import type { Grantee } from '../../src/grants.ts';
import type { QueueConnection } from '../../src/queue.ts';
import { urlAs } from './roles.ts';

/** A database as one of its users has it. */
export interface Access {
  readonly url: string;
  readonly pool: pg.Pool;
}

/**
 * What the database itself gives is the right to do anything: for what tests plant and look at. The
 * program under test connects as its role, with no more than `gift-budgets grants` gives it.
 */
export interface TestDatabase extends Database, Readonly<Record<Grantee, Access>> {
  readonly url: string;
}

let databases = 0;

/** A migrated database of its own, with a queue in it, dropped by its `close`. */
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
  const opened: pg.Pool[] = [];
  const access = (grantee: Grantee): Access => {
    const own = accessAs(url.href, database.pool, grantee);
    opened.push(own.pool);
    return own;
  };
  return {
    ...database,
    url: url.href,
    migrator: access('migrator'),
    worker: access('worker'),
    reader: access('reader'),
    upstream: access('upstream'),
    async close() {
      for (const pool of opened) await pool.end();
      await database.close();
      await onServer(serverUrl, `drop database ${name} with (force)`);
    },
  };
}

/** A pool with the settings of the program's own; it connects when it is used. */
function accessAs(ownerUrl: string, { options }: pg.Pool, grantee: Grantee): Access {
  const url = urlAs(ownerUrl, inject('roles'), grantee);
  const { username: user, password } = new URL(url);
  const pool = new pg.Pool({ ...options, connectionString: url, user, password });
  // Where tests cut a connection, whoever uses it tells of it.
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  return { url, pool };
}

/** Drops roles of the server, which nothing may be granted to any more. */
export async function dropDatabaseRoles(names: readonly string[]): Promise<void> {
  for (const name of names) {
    await onServer(inject('postgresUrl'), `drop role if exists ${pg.escapeIdentifier(name)}`);
  }
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
    suite(async ({ worker }) => ({ backend: 'postgres', url: worker.url }));
  });
  const redisUrl = inject('redisUrl');
  describe.skipIf(redisUrl === null)(`${name}, queue in Redis`, () => {
    suite(async () => {
      const prefix = `test-${process.pid}-${(queues += 1)}`;
      return { backend: 'redis', url: redisUrl!, prefix };
    });
  });
}
