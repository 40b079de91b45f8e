import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import pg from 'pg';
import { type Database, migrate, openDatabase } from '../src/database.ts';
import { startEmbeddedPostgres } from '../src/embedded/server.ts';

/** What the benchmarks run on; all else is PostgreSQL's default, so commits wait for the disk. */
const POSTGRES_SETTINGS = {
  fsync: 'on',
  shared_buffers: '1GB',
  max_wal_size: '8GB',
  checkpoint_timeout: '30min',
  max_connections: '200',
  shared_preload_libraries: 'pg_stat_statements',
};

const SETTINGS_SHOWN = [
  'server_version',
  'shared_buffers',
  'max_wal_size',
  'fsync',
  'synchronous_commit',
  'autovacuum',
  'jit',
];

export interface BenchDatabase extends Database {
  readonly url: string;
}

/** Runs the work on a PostgreSQL of its own, migrated, whose settings are printed. */
export async function withPostgres<T>(work: (database: BenchDatabase) => Promise<T>): Promise<T> {
  const server = await startEmbeddedPostgres({ settings: POSTGRES_SETTINGS });
  try {
    const database = await openDatabase(server.url, { poolMax: 40 });
    try {
      await migrate(database);
      await database.pool.query('create extension pg_stat_statements');
      await printSettings(database.pool);
      return await work({ ...database, url: server.url });
    } finally {
      await database.close();
    }
  } finally {
    await server.stop();
  }
}

let databases = 0;

/** Runs the work on one more database of a server, migrated. */
export async function withDatabase<T>(
  serverUrl: string,
  work: (database: BenchDatabase) => Promise<T>,
): Promise<T> {
  const name = `bench_${(databases += 1)}`;
  const server = new pg.Client({ connectionString: serverUrl });
  await server.connect();
  await server.query(`create database ${name}`);
  await server.end();
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const database = await openDatabase(url.href, { poolMax: 40 });
  try {
    await migrate(database);
    return await work({ ...database, url: url.href });
  } finally {
    await database.close();
  }
}

async function printSettings(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ name: string; setting: string }>(
    `select name, current_setting(name) as setting from pg_settings
      where name = any ($1) order by array_position($1, name)`,
    [SETTINGS_SHOWN],
  );
  console.log(`PostgreSQL: ${rows.map(({ name, setting }) => `${name}=${setting}`).join(' ')}`);
}

/** Runs the work on a Redis of its own, as production has it: append-only file, no eviction. */
export async function withRedis<T>(work: (url: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'gift-budgets-bench-'));
  const port = await freePort();
  const settings = ['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', ''];
  const flags = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, ...settings];
  const server = spawn('redis-server', flags, { stdio: 'ignore' });
  const exited = once(server, 'exit');
  try {
    const url = `redis://127.0.0.1:${port}`;
    await answers(url);
    const version = execFileSync('redis-server', ['--version'], { encoding: 'utf8' });
    console.log(`Redis: ${/v=\S+/.exec(version)?.[0]} appendonly=yes appendfsync=everysec`);
    return await work(url);
  } finally {
    server.kill();
    await exited;
    await rm(directory, { recursive: true });
  }
}

async function answers(url: string): Promise<void> {
  const redis = new Redis(url, { maxRetriesPerRequest: 100, retryStrategy: () => 50 });
  redis.on('error', () => {});
  await redis.ping();
  redis.disconnect();
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}
