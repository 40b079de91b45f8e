import { execFileSync } from 'node:child_process';
import pg from 'pg';
import { type Database, migrate, openDatabase } from '../src/database.ts';
import { startEmbeddedPostgres } from '../src/embedded/server.ts';
import { createOwnRedis, freePort } from '../test/support/outages.ts';

/** What the benchmarks run on; all else but `jit` is PostgreSQL's default, so commits wait for the disk. */
const POSTGRES_SETTINGS = {
  fsync: 'on',
  full_page_writes: 'on',
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
  'full_page_writes',
  'synchronous_commit',
  'autovacuum',
  'jit',
];

export interface BenchDatabase extends Database {
  readonly url: string;
}

/** Runs the work on a PostgreSQL of its own, migrated, whose settings are printed. */
export async function withPostgres<T>(
  work: (database: BenchDatabase) => Promise<T>,
  settings: Readonly<Record<string, string>> = {},
): Promise<T> {
  const server = await startEmbeddedPostgres({ settings: { ...POSTGRES_SETTINGS, ...settings } });
  try {
    return await withMigrated(server.url, async (database) => {
      await database.pool.query('create extension pg_stat_statements');
      await printSettings(database.pool);
      return await work(database);
    });
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
  return await withMigrated(url.href, work);
}

async function withMigrated<T>(
  url: string,
  work: (database: BenchDatabase) => Promise<T>,
): Promise<T> {
  const database = await openDatabase(url, { poolMax: 40 });
  try {
    await migrate(database);
    return await work({ ...database, url });
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
  const redis = createOwnRedis(await freePort());
  await redis.start();
  try {
    await redis.run('config', 'set', 'appendonly', 'yes');
    const version = execFileSync('redis-server', ['--version'], { encoding: 'utf8' });
    console.log(`Redis: ${/v=\S+/.exec(version)?.[0]} appendonly=yes appendfsync=everysec`);
    return await work(redis.connection.url);
  } finally {
    await redis.stop();
  }
}
