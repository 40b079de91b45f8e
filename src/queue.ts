import {
  createPostgresBackend,
  DEFAULT_SCHEMA,
  Queue,
  runMigrations,
  type PostgresPoolConfig,
  type Processor,
  type RedisConnectionClient,
  type Worker,
  type WorkerOptions,
} from 'bullmq';
import { Redis } from 'ioredis';
import { once } from 'node:events';
import pg from 'pg';
import { GIFT_EVENTS_QUEUE } from './events/contract.ts';
import { GiftEventsWorker } from './queue/gift-events-worker.ts';
import { createReadableRedisBackend } from './queue/readable-redis.ts';

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

/**
 * Which finished jobs BullMQ keeps for people to look at. In PostgreSQL by their age in seconds: to
 * keep a number, each job that ends reads all those that are kept (8 ms for a thousand), and deletes
 * some that BullMQ's check for stalled jobs still holds, which holds up or deadlocks with the rest.
 */
const KEPT: Record<
  QueueConnection['backend'],
  Pick<WorkerOptions, 'removeOnComplete' | 'removeOnFail'>
> = {
  redis: { removeOnComplete: { count: 1_000 }, removeOnFail: { count: 10_000 } },
  postgres: { removeOnComplete: { age: 60 }, removeOnFail: { age: 14 * 24 * 60 * 60 } },
};

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

/**
 * BullMQ takes the defaults of the role and the database as they are: read only, they would refuse
 * every job, and SERIALIZABLE ones would fail some.
 */
const SESSION =
  '-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed';

/** More jobs at once than this only wait for the PostgreSQL backend's few connections. */
const POSTGRES_CONCURRENCY_MAX = 50;

/** BullMQ's default waits up to 20 s; with 1 s service is back right after Redis is. */
const reconnectDelayMs = (times: number): number => Math.min(times * 100, 1_000);

/** Creates what the queue needs where it lives in PostgreSQL; on Redis there is nothing to do. */
export async function prepareQueue(connection: QueueConnection): Promise<void> {
  if (connection.backend === 'redis') return;
  const client = new pg.Client(sessionOf(connection.url));
  await client.connect();
  try {
    await runMigrations(client, connection.schema);
    await createJobIds(client, connection.schema ?? DEFAULT_SCHEMA);
  } finally {
    await client.end();
  }
}

/**
 * The sequence of a queue's job ids, which BullMQ leaves to whoever adds the first job: he may have no
 * right to create anything.
 */
async function createJobIds(client: pg.Client, schema: string): Promise<void> {
  const within = pg.escapeIdentifier(schema);
  const { rows } = await client.query<{ name: string }>(
    `select ${within}.job_id_seq_name($1) as name`,
    [GIFT_EVENTS_QUEUE],
  );
  await client.query(
    `create sequence if not exists ${within}.${pg.escapeIdentifier(rows[0]!.name)}`,
  );
}

/** The queue as a program that looks at it or adds to it has it. */
export interface OpenQueue {
  readonly queue: Queue;
  /**
   * Waits for the connection, but not long.
   *
   * @throws the reason why there is none.
   */
  connected(): Promise<void>;
  close(): Promise<void>;
}

/** A connection that is just being made gets this long; one that was lost gets a tenth of it. */
const CONNECT_TIMEOUT_MS = 1_000;

/** A server that has the connection and does not answer (frozen, or cut off) gets this long. */
const REDIS_ANSWER_TIMEOUT_MS = 5_000;

/** Longer, because calls wait in it for one of the few connections too. */
const POSTGRES_ANSWER_TIMEOUT_MS = 10_000;

/**
 * Opens the queue. Its calls never hang, also when the server was down as the process started,
 * and they work again once it is back. On Redis they fail within about a tenth of a second while
 * nothing answers the connection (the first within one), and within 5 s on a frozen server.
 *
 * @param onError told of lost connections; they come back by themselves.
 */
export function openGiftEventsQueue(
  connection: QueueConnection,
  onError: (error: Error) => void,
): OpenQueue {
  return connection.backend === 'postgres'
    ? openPostgresQueue(connection, onError)
    : openRedisQueue(connection, onError);
}

function openPostgresQueue(
  connection: QueueConnection & { backend: 'postgres' },
  onError: (error: Error) => void,
): OpenQueue {
  const options = {
    connection: {
      ...postgresConnection(connection),
      connectionTimeoutMillis: POSTGRES_ANSWER_TIMEOUT_MS,
      query_timeout: POSTGRES_ANSWER_TIMEOUT_MS,
    },
  };
  const open = (): Queue => {
    const queue = new Queue(GIFT_EVENTS_QUEUE, options, createPostgresBackend);
    queue.on('error', onError);
    return queue as unknown as Queue;
  };
  let queue = open();
  return {
    get queue() {
      return queue;
    },
    async connected() {
      const tried = queue;
      await tried.waitUntilReady().catch(async () => {
        // A queue of BullMQ whose first connection failed answers with that failure for ever.
        if (queue === tried) {
          queue = open();
          tried.close().catch(onError);
        }
        await queue.waitUntilReady();
      });
    },
    close: async () => await queue.close(),
  };
}

function openRedisQueue(
  connection: QueueConnection & { backend: 'redis' },
  onError: (error: Error) => void,
): OpenQueue {
  let lastError: Error | undefined;
  const redis = new Redis(connection.url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: REDIS_ANSWER_TIMEOUT_MS,
    retryStrategy: reconnectDelayMs,
  });
  redis.on('connect', () => (lastError = undefined));
  redis.on('error', (error: Error) => onError((lastError = error)));
  const options = {
    connection: redis as unknown as RedisConnectionClient,
    prefix: connection.prefix ?? 'bull',
    skipWaitingForReady: true,
    skipVersionCheck: true,
  };
  const queue = new Queue(GIFT_EVENTS_QUEUE, options, createReadableRedisBackend) as Queue;
  queue.on('error', onError);
  const connectBy = performance.now() + CONNECT_TIMEOUT_MS;
  /** Shared by all calls that wait at the same time. */
  let waiting: Promise<void> | undefined;
  const untilReady = async (): Promise<void> => {
    const leftMs = Math.round(connectBy - performance.now());
    const timeoutMs = Math.max(CONNECT_TIMEOUT_MS / 10, leftMs);
    const signal = AbortSignal.timeout(timeoutMs);
    await once(redis, 'ready', { signal }).catch(() => {
      throw lastError ?? new Error(`no connection within ${timeoutMs} ms`);
    });
  };
  return {
    queue,
    async connected() {
      if (redis.status === 'ready') return;
      await (waiting ??= untilReady().finally(() => (waiting = undefined)));
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
    ...KEPT[connection.backend],
    // How soon a worker tries again after its connection failed; BullMQ's default is 15 s.
    runRetryDelay: 1_000,
  };
  if (connection.backend === 'postgres') {
    const postgresOptions = {
      ...options,
      concurrency: Math.min(concurrency, POSTGRES_CONCURRENCY_MAX),
      connection: postgresConnection(connection),
    };
    const worker = new GiftEventsWorker(
      GIFT_EVENTS_QUEUE,
      processor,
      postgresOptions,
      createPostgresBackend,
    );
    return worker as unknown as Worker<unknown, unknown, string>;
  }
  const redisOptions = {
    ...options,
    connection: {
      url: connection.url,
      maxRetriesPerRequest: null,
      retryStrategy: reconnectDelayMs,
    },
    prefix: connection.prefix ?? 'bull',
  };
  return new GiftEventsWorker(
    GIFT_EVENTS_QUEUE,
    processor,
    redisOptions,
    createReadableRedisBackend,
  );
}

/** What the URL says in `options` counts before what is passed beside it, so both are put together. */
function sessionOf(url: string): { connectionString: string; options: string } {
  const parsed = new URL(url);
  const given = parsed.searchParams.get('options') ?? '';
  parsed.searchParams.delete('options');
  return { connectionString: parsed.href, options: `${given} ${SESSION}` };
}

function postgresConnection(connection: { url: string; schema?: string }): PostgresPoolConfig {
  return {
    ...sessionOf(connection.url),
    max: 4,
    ...(connection.schema === undefined ? {} : { schema: connection.schema }),
  };
}
