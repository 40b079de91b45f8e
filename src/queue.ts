import {
  createPostgresBackend,
  Queue,
  runMigrations,
  Worker,
  type KeepJobs,
  type PostgresPoolConfig,
  type Processor,
  type RedisConnectionClient,
} from 'bullmq';
import { Redis } from 'ioredis';
import { once } from 'node:events';
import pg from 'pg';
import { GIFT_EVENTS_QUEUE } from './events/contract.ts';

/** Where the gift-events queue lives. */
export type QueueConnection =
  | {
      readonly backend: 'redis';
      /** redis:// or rediss:// */
      readonly url: string;
      /** BullMQ's key prefix; 'bull' unless set. */
      readonly prefix?: string;
    }
  | {
      readonly backend: 'postgres';
      /** postgres:// or postgresql:// */
      readonly url: string;
      /** The schema that holds BullMQ's tables; 'bullmq' unless set. */
      readonly schema?: string;
    };

/** How many jobs of each kind BullMQ keeps for people to look at. */
const KEEP_COMPLETED: KeepJobs = { count: 1_000 };
const KEEP_FAILED: KeepJobs = { count: 10_000 };

/**
 * A killed worker's jobs are taken up by another after about 5 s on Redis and 7 s on PostgreSQL
 * (60 s at BullMQ's defaults), and no job of a live worker is taken for stalled unless its event
 * loop stands still for 4 s. A job may meet many killed workers in a rolling restart; the default
 * of one stall would fail it for good.
 */
const STALLS = {
  lockDuration: 5_000,
  lockRenewTime: 1_000,
  stalledInterval: 2_500,
  maxStalledCount: 25,
};

/** More jobs at once than this only wait for the PostgreSQL backend's few connections. */
const POSTGRES_CONCURRENCY_MAX = 50;

/** BullMQ's default waits up to 20 s; with 1 s service is back right after Redis is. */
const reconnectDelayMs = (times: number): number => Math.min(times * 100, 1_000);

/** Creates what the queue needs where it lives in PostgreSQL; on Redis there is nothing to do. */
export async function prepareQueue(connection: QueueConnection): Promise<void> {
  if (connection.backend === 'redis') return;
  const client = new pg.Client({ connectionString: connection.url });
  await client.connect();
  try {
    await runMigrations(client, connection.schema);
  } finally {
    await client.end();
  }
}

/** The queue as a program that looks at it or adds to it has it. */
export interface OpenQueue {
  readonly queue: Queue;
  /** Waits for the connection, but not long; what then fails says so itself. */
  connected(): Promise<void>;
  close(): Promise<void>;
}

/** A connection that is just being made gets this long; one that was lost gets a tenth of it. */
const CONNECT_TIMEOUT_MS = 1_000;

/**
 * Opens the queue. On Redis it never hangs: while Redis is away every call fails within about a
 * tenth of a second (the first within one), also when Redis was down as the process started, and
 * works again once Redis is back.
 *
 * @param onError told of lost connections; they come back by themselves.
 */
export function openGiftEventsQueue(
  connection: QueueConnection,
  onError: (error: Error) => void,
): OpenQueue {
  if (connection.backend === 'postgres') {
    const options = { connection: postgresConnection(connection) };
    const queue = new Queue(GIFT_EVENTS_QUEUE, options, createPostgresBackend);
    queue.on('error', onError);
    const close = async (): Promise<void> => await queue.close();
    return { queue: queue as unknown as Queue, connected: async () => {}, close };
  }
  const redis = new Redis(connection.url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    retryStrategy: reconnectDelayMs,
  });
  redis.on('error', onError);
  const queue = new Queue(GIFT_EVENTS_QUEUE, {
    connection: redis as unknown as RedisConnectionClient,
    prefix: connection.prefix ?? 'bull',
    skipWaitingForReady: true,
    skipVersionCheck: true,
  });
  queue.on('error', onError);
  let wasConnected = false;
  return {
    queue,
    async connected() {
      const timeoutMs = wasConnected ? CONNECT_TIMEOUT_MS / 10 : CONNECT_TIMEOUT_MS;
      wasConnected = true;
      if (redis.status === 'ready') return;
      const timeout = AbortSignal.timeout(timeoutMs);
      await once(redis, 'ready', { signal: timeout }).catch(() => {});
    },
    async close() {
      await queue.close().catch(onError);
      redis.disconnect();
    },
  };
}

/** A worker on the gift-events queue, not yet running. */
export function createGiftEventsWorker(
  connection: QueueConnection,
  processor: Processor<unknown, unknown, string>,
  concurrency: number,
): Worker<unknown, unknown, string> {
  const options = {
    ...STALLS,
    concurrency,
    autorun: false,
    removeOnComplete: KEEP_COMPLETED,
    removeOnFail: KEEP_FAILED,
    // How soon a worker tries again after its connection failed; BullMQ's default is 15 s.
    runRetryDelay: 1_000,
  };
  if (connection.backend === 'postgres') {
    const worker = new Worker(
      GIFT_EVENTS_QUEUE,
      processor,
      {
        ...options,
        concurrency: Math.min(concurrency, POSTGRES_CONCURRENCY_MAX),
        connection: postgresConnection(connection),
      },
      createPostgresBackend,
    );
    return worker as unknown as Worker<unknown, unknown, string>;
  }
  return new Worker(GIFT_EVENTS_QUEUE, processor, {
    ...options,
    connection: {
      url: connection.url,
      maxRetriesPerRequest: null,
      retryStrategy: reconnectDelayMs,
    },
    prefix: connection.prefix ?? 'bull',
  });
}

function postgresConnection(connection: { url: string; schema?: string }): PostgresPoolConfig {
  return {
    connectionString: connection.url,
    max: 4,
    ...(connection.schema === undefined ? {} : { schema: connection.schema }),
  };
}
