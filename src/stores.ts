import type { Config } from './config.ts';
import { type Database, migrate, openDatabase } from './database.ts';
import { startEmbeddedPostgres } from './embedded/server.ts';
import { prepareQueue, type QueueConnection } from './queue.ts';

/** The two stores of a program: the database, and where the gift-events queue lives. */
export interface Stores {
  readonly databaseUrl: string;
  readonly database: Database;
  readonly queue: QueueConnection;
  /** True where PostgreSQL is the embedded one; it is migrated already. */
  readonly embedded: boolean;
  close(): Promise<void>;
}

export interface OpenStoresOptions {
  /** Shown to those who look at pg_stat_activity. */
  readonly applicationName: string;
  /** The most connections of the pool. */
  readonly poolMax?: number;
  /** What for the work needs a session of its own on the server, which no pooler in transaction mode gives. */
  readonly sessionFor?: string;
  /** A private embedded server that is gone after `close`, whatever the configuration says. */
  readonly privateServer?: boolean;
}

/**
 * Opens the stores that the configuration names. Without a database URL that is the embedded
 * PostgreSQL, migrated so that a newcomer need not know how; without a Redis URL the queue lives
 * in PostgreSQL too.
 */
export async function openStores(config: Config, options: OpenStoresOptions): Promise<Stores> {
  const given = options.privateServer === true ? undefined : config.databaseUrl;
  const server = given === undefined ? await startEmbedded(config, options) : undefined;
  const databaseUrl = given ?? server!.url;
  try {
    const database = await openDatabase(databaseUrl, {
      applicationName: options.applicationName,
      pooled: config.pooler === 'transaction',
      ...(options.poolMax === undefined ? {} : { poolMax: options.poolMax }),
    });
    const queue = queueConnection(config, databaseUrl, options);
    if (server) {
      await migrate(database);
      await prepareQueue(queue);
    }
    const close = async (): Promise<void> => {
      await database.close();
      await server?.stop();
    };
    return { databaseUrl, database, queue, embedded: server !== undefined, close };
  } catch (error) {
    await server?.stop();
    throw error;
  }
}

async function startEmbedded(config: Config, { privateServer }: OpenStoresOptions) {
  return await startEmbeddedPostgres(
    privateServer === true ? {} : { directory: config.embeddedDirectory },
  );
}

function queueConnection(
  config: Config,
  databaseUrl: string,
  { privateServer }: OpenStoresOptions,
): QueueConnection {
  return config.redisUrl === undefined || privateServer === true
    ? { backend: 'postgres', url: databaseUrl }
    : { backend: 'redis', url: config.redisUrl };
}
