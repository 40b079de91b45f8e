import { Ajv } from 'ajv';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { credentialsOf } from '../../src/operations/serve-pages.ts';
import { findExposure } from '../../src/operations/web-server.ts';
import { type ComposeFile, readCompose } from '../support/deployment.ts';
import { readDocument, ROOT } from '../support/documents.ts';
import { freePort, isOnPath } from '../support/outages.ts';

const SCHEMA = 'node_modules/dclint/schemas/compose.schema.json';

let directory: string;
let compose: ComposeFile;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'compose-'));
  compose = readCompose(makePasswords());
});
afterAll(async () => {
  await rm(directory, { recursive: true });
});

/** Types the lines at the top of the file that make the passwords. */
function makePasswords(): Record<string, string> {
  const loop = /^#   (for name in .*?> \.env)$/ms.exec(readDocument('docker-compose.yml'))![1]!;
  execFileSync('sh', ['-c', loop.replaceAll(/^#/gm, '')], { cwd: directory });
  const env = execFileSync('cat', ['.env'], { cwd: directory, encoding: 'utf8' });
  return Object.fromEntries(
    env
      .trim()
      .split('\n')
      .map((line) => line.split('=')),
  );
}

describe('docker-compose.yml', () => {
  it('is as the compose specification has it', () => {
    const schema = JSON.parse(readDocument(SCHEMA)) as object;
    const isValid = new Ajv({ strict: false, validateSchema: false }).compile(schema);
    expect(isValid(compose), JSON.stringify(isValid.errors)).toBe(true);
    const misspelt = { ...compose.services.worker, read_onyl: true };
    expect(isValid({ services: { worker: misspelt } })).toBe(false);
  });

  it('has none of the errors that a linter knows', async () => {
    const dclint = join(ROOT, 'node_modules/.bin/dclint');
    const { stdout } = await promisify(execFile)(dclint, ['--quiet', 'docker-compose.yml'], {
      cwd: ROOT,
    });
    expect(stdout.trim()).toBe('');
  });

  it('asks for the passwords that are missing', () => {
    expect(() => readCompose()).toThrow('POSTGRES_PASSWORD is missing: see the top of');
  });

  it('gives worker and migrations settings that they accept', () => {
    const { worker, migrate } = compose.services;
    const config = loadConfig({ NODE_ENV: 'production', ...worker!.environment });
    const { dashboardHost: host, dashboardPort } = config;
    expect(findExposure({ host, credentials: credentialsOf(config) })).toBeNull();
    expect(worker!.ports).toEqual([`127.0.0.1:3000:${dashboardPort}`]);
    expect(config.databaseUrl).toContain('@postgres:5432/');
    expect(config.redisUrl).toContain('@redis:6379');
    const { databaseUrl } = loadConfig({ NODE_ENV: 'production', ...migrate!.environment });
    expect(databaseUrl).toBe(config.databaseUrl);
    // Longer than the jobs under way and then the givings back may take.
    expect(secondsOf(worker!.stop_grace_period)).toBeGreaterThan(
      config.drainTimeoutMs / 1_000 + 10,
    );
  });

  it('starts the worker on migrated servers only, and lets nothing be written or reached', () => {
    const { worker, migrate } = compose.services;
    expect(worker!.depends_on).toEqual({
      postgres: { condition: 'service_healthy' },
      redis: { condition: 'service_healthy' },
      migrate: { condition: 'service_completed_successfully' },
    });
    expect(migrate).toMatchObject({ command: ['migrate'], healthcheck: { disable: true } });
    for (const [name, service] of Object.entries(compose.services)) {
      expect(service.read_only, name).toBe(true);
      for (const port of service.ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:/);
      if (name !== 'migrate') expect(service.restart, name).toBe('unless-stopped');
    }
  });
});

describe.skipIf(!isOnPath('redis-server'))('the Redis of docker-compose.yml', () => {
  it('keeps its jobs, evicts none, and is healthy for those who know the password', async () => {
    const { command, environment, healthcheck } = compose.services.redis!;
    const port = await freePort();
    const [program, ...args] = command!;
    const server = spawn(program!, [...args, '--port', `${port}`, '--dir', directory]);
    const password = environment.REDISCLI_AUTH!;
    const redis = new Redis(port, { password, retryStrategy: () => 50 });
    redis.on('error', () => {});
    try {
      expect(await redis.config('GET', 'maxmemory-policy')).toContain('noeviction');
      expect(await redis.config('GET', 'appendonly')).toContain('yes');
      const [, client, ...ask] = healthcheck!.test!;
      const isHealthy = (env: Record<string, string>): string =>
        execFileSync(client!, ['-p', `${port}`, ...ask], {
          env: { PATH: process.env.PATH, ...env },
          stdio: 'pipe',
          encoding: 'utf8',
        });
      expect(isHealthy(environment)).toBe('PONG\n');
      expect(() => isHealthy({})).toThrow('NOAUTH');
    } finally {
      redis.disconnect();
      server.kill();
      await once(server, 'exit');
    }
  });
});

function secondsOf(duration: unknown): number {
  const [, number, unit] = /^(\d+)(s|m)$/.exec(String(duration))!;
  return Number(number) * (unit === 'm' ? 60 : 1);
}
