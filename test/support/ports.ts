import { encode } from '@msgpack/msgpack';
import { addStandardJob } from 'bullmq5/dist/esm/scripts/addStandardJob-9.js';
import { Redis } from 'ioredis';
import pg from 'pg';
import { GIFT_EVENTS_QUEUE } from '../../src/events/contract.ts';
import type { QueueConnection } from '../../src/queue.ts';

/** A job as a port of BullMQ in another language has it: the data are written as text already. */
export interface PortJob {
  readonly name: string;
  readonly data: string;
  readonly options?: Readonly<Record<string, unknown>>;
  /** Of its own, where a port makes ids itself; the queue's next one unless given. */
  readonly id?: string;
  readonly timestamp?: number;
}

/** How a port writes values for the scripts on Redis. */
export type Packer = (value: unknown) => Uint8Array;

export const PACKERS: Readonly<Record<string, Packer>> = {
  'the smallest integers': (value) => encode(value),
  'every number a float': (value) => encode(value, { forceIntegerToFloat: true }),
  '64-bit integers': (value) => encode(withBigInts(value), { useBigInt64: true }),
};

export type Port = ReturnType<typeof openRedisPort>;

/**
 * A producer in another language: its own copy of BullMQ's script (that of BullMQ 5, which the ports
 * were made of), or a call of BullMQ's function in PostgreSQL.
 */
export function openPort(connection: QueueConnection, pack: Packer = encode): Port {
  return connection.backend === 'redis' ? openRedisPort(connection, pack) : openPgPort(connection);
}

const KEYS = ['wait', 'paused', 'meta', 'id', 'completed', 'delayed', 'active', 'events', 'marker'];

function openRedisPort(connection: QueueConnection & { backend: 'redis' }, pack: Packer) {
  const redis = new Redis(connection.url);
  const prefix = `${connection.prefix ?? 'bull'}:${GIFT_EVENTS_QUEUE}:`;
  return {
    async add({ name, data, options = {}, id = '', timestamp = Date.now() }: PortJob) {
      const head = [prefix, id, name, timestamp, null, null, null, null, null];
      const keys = KEYS.map((key) => prefix + key);
      const args = [Buffer.from(pack(head)), data, Buffer.from(pack(options))];
      return String(await redis.eval(addStandardJob.content, keys.length, ...keys, ...args));
    },
    async close() {
      redis.disconnect();
    },
  };
}

function openPgPort({ url, schema = 'bullmq' }: QueueConnection & { backend: 'postgres' }): Port {
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  return {
    async add({ name, data, options = {}, id = '', timestamp = Date.now() }) {
      const { rows } = await pool.query<{ id: string }>(
        `select ${schema}.add_job($1, $2, $3, $4, $5, 0, 0, $6, 1, null, null, null, null, null, false) as id`,
        [GIFT_EVENTS_QUEUE, id, name, data, JSON.stringify(options), Math.round(timestamp)],
      );
      return rows[0]!.id;
    },
    close: async () => await pool.end(),
  };
}

function withBigInts(value: unknown): unknown {
  if (typeof value === 'number') return BigInt(value);
  if (Array.isArray(value)) return value.map(withBigInts);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]) => [key, withBigInts(inner)]);
  return Object.fromEntries(entries);
}
