import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { startEmbeddedPostgres } from '../../src/embedded/server.ts';
import { freePort, isOnPath } from './outages.ts';
import { deploy, dropRoles, nameRoles, type TestRoles } from './roles.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** A server's maintenance database; tests make databases of their own beside it. */
    postgresUrl: string;
    /** A database to clone, with schema, queue and grants. */
    templateName: string;
    roles: TestRoles;
    redisUrl: string | null;
  }
}

const HOW_TO_GET_REDIS =
  'no Redis: its suites are skipped; "apt-get install redis-server" or set REDIS_URL to run them';

/** One PostgreSQL and one Redis for the whole run, ended and looked after at its end. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // Whatever the tests put into the temporary directory must be gone at the end, and nobody else's.
  const temporary = await mkdtemp(join(tmpdir(), 'gift-budgets-test-'));
  await chmod(temporary, 0o755);
  process.env.TMPDIR = temporary;
  const own = process.env.DATABASE_URL
    ? null
    : await startEmbeddedPostgres({
        settings: { max_connections: '300', max_prepared_transactions: '10' },
      });
  const postgresUrl = own?.url ?? process.env.DATABASE_URL!;
  const prefix = `gift_budgets_test_${process.pid}`;
  const templateName = `${prefix}_template`;
  await execute(postgresUrl, `create database ${templateName}`);
  const roles = nameRoles(prefix);
  await deploy(databaseUrl(postgresUrl, templateName), roles);
  const redis = await startRedis();
  project.provide('postgresUrl', postgresUrl);
  project.provide('templateName', templateName);
  project.provide('roles', roles);
  project.provide('redisUrl', redis?.url ?? null);
  return async () => {
    await redis?.stop();
    await execute(postgresUrl, `drop database ${templateName}`);
    const left = await execute(
      postgresUrl,
      `select datname from pg_database where datname like '${prefix}%'`,
    );
    if (left.length === 0) await dropRoles(postgresUrl, roles);
    const leftRoles = await execute(
      postgresUrl,
      `select rolname from pg_roles where rolname like '%${prefix}%'`,
    );
    await own?.stop();
    const files = (await readdir(temporary)).filter((name) => name.startsWith('gift-budgets-'));
    await rm(temporary, { recursive: true });
    const leaks = [
      ...left.map((row) => `database ${row.datname}`),
      ...leftRoles.map((row) => `role ${row.rolname}`),
      ...files,
    ];
    if (leaks.length > 0) throw new Error(`the tests left behind: ${leaks.join(', ')}`);
  };
}

function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

async function execute(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query(sql);
  await client.end();
  return rows;
}

async function startRedis(): Promise<{ url: string; stop(): Promise<void> } | null> {
  if (process.env.REDIS_URL) return { url: process.env.REDIS_URL, stop: async () => {} };
  const program = ['redis-server', 'valkey-server'].find(isOnPath);
  if (program === undefined) {
    if (process.env.REQUIRE_REDIS === '1')
      throw new Error(`REQUIRE_REDIS=1, but ${HOW_TO_GET_REDIS}`);
    console.warn(HOW_TO_GET_REDIS);
    return null;
  }
  const directory = await mkdtemp(join(tmpdir(), 'gift-budgets-redis-'));
  const port = await freePort();
  const server = spawn(
    program,
    [
      '--port',
      String(port),
      '--bind',
      '127.0.0.1',
      '--save',
      '',
      '--maxmemory-policy',
      'noeviction',
    ],
    { cwd: directory, stdio: 'ignore' },
  );
  const url = `redis://127.0.0.1:${port}`;
  const client = new Redis(url, { retryStrategy: () => 50, maxRetriesPerRequest: 100 });
  client.on('error', () => {});
  await client.ping();
  client.disconnect();
  return {
    url,
    async stop() {
      const exited = once(server, 'exit');
      server.kill();
      await exited;
      await sleep(0);
      await rm(directory, { recursive: true });
    },
  };
}
