import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { pendingMigrations } from '../../src/database.ts';
import { eventually } from '../support/budgets.ts';
import { ROOT } from '../support/documents.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';
import { copyRepository, mustRun, QUIETLY, run, type Run } from '../support/typist.ts';

const MIGRATIONS = (await readdir(join(ROOT, 'migrations'))).length;
const MIGRATION_NAME = /Migration2\d+_\w+/g;

let parent: string;
/** A checkout without what only development needs. */
let checkout: string;
let database: TestDatabase;
let env: NodeJS.ProcessEnv;

beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'deploy-'));
  checkout = await copyRepository(join(parent, 'checkout'));
  await mustRun(checkout, `npm ci --omit=dev ${QUIETLY}`);
}, 600_000);
afterAll(async () => {
  await mustRun(parent, 'chmod -R u+w .');
  await rm(parent, { recursive: true });
});
beforeEach(async () => {
  database = await createEmptyDatabase();
  env = { DATABASE_URL: database.url };
});
afterEach(async () => {
  await database.close();
});

describe('with the MikroORM CLI, in the repository', () => {
  it('migrates an empty database after whoever migrates it already, and says what it does', async () => {
    const pending = await run(ROOT, 'npx mikro-orm migration:pending', env);
    expect(pending.out.match(MIGRATION_NAME)).toHaveLength(MIGRATIONS);
    const { running } = await runWhileAnotherMigrates('npx mikro-orm migration:up');
    expect(await running).toMatchObject({
      code: 0,
      out: expect.stringContaining('Successfully migrated'),
    });
    expect(await pendingMigrations(database)).toEqual([]);
    const check = await run(ROOT, 'npx mikro-orm migration:check', env);
    expect(check).toMatchObject({ code: 0, out: expect.stringContaining('No changes required') });
    await database.pool.query('alter table persons add column nickname text');
    expect((await run(ROOT, 'npx mikro-orm migration:check', env)).code).not.toBe(0);
  });

  it('without DATABASE_URL says so, and fails', async () => {
    const { code, err, out } = await run(ROOT, 'npx mikro-orm migration:up', {
      DATABASE_URL: '',
    });
    expect(code).not.toBe(0);
    expect(`${out}${err}`).toContain('DATABASE_URL is not set: it names the PostgreSQL database');
    expect(out).not.toContain('Successfully migrated');
    expect(await pendingMigrations(database)).toHaveLength(MIGRATIONS);
  });
});

describe('installed without what development needs', () => {
  it('a checkout migrates with the MikroORM CLI the same way', async () => {
    expect(existsSync(join(checkout, 'node_modules/vitest'))).toBe(false);
    await mustRun(checkout, 'npx mikro-orm migration:up', env);
    expect(await pendingMigrations(database)).toEqual([]);
    await mustRun(checkout, 'npx mikro-orm migration:check', env);
    const pending = await mustRun(checkout, 'npx mikro-orm migration:pending', env);
    expect(pending).not.toMatch(MIGRATION_NAME);
  });
});

describe('where the program may not write', () => {
  it('a checkout migrates, and finds nothing to do afterwards', async () => {
    const reader = await somebodyWhoMayOnlyRead(checkout);
    const before = await filesOf(checkout);
    const cli = (command: string): string =>
      `${reader.node} node_modules/@mikro-orm/cli/cli.js migration:${command}`;
    const mayWrite = await run(checkout, 'touch migrations/written', env, reader.identity);
    expect(mayWrite.code).not.toBe(0);
    for (const [command, said] of [
      ['up', 'Successfully migrated'],
      ['check', 'No changes required'],
      ['pending', 'No pending migrations'],
    ] as const) {
      expect(await run(checkout, cli(command), env, reader.identity)).toMatchObject({
        code: 0,
        out: expect.stringContaining(said),
      });
    }
    expect(await pendingMigrations(database)).toEqual([]);
    expect(await filesOf(checkout)).toEqual(before);
  });
});

/** Nobody, where we are root; else us, without the permission to write there or at home. */
async function somebodyWhoMayOnlyRead(folder: string) {
  const isRoot = process.getuid?.() === 0;
  // Ours may lie where only root may go.
  const node = join(parent, 'node');
  await copyFile(process.execPath, node);
  await mustRun(parent, `chmod 755 . node && chmod -R a+rX,a-w ${folder}`);
  return { node, identity: isRoot ? { uid: 65_534, gid: 65_534 } : {} };
}

async function filesOf(folder: string): Promise<string> {
  return await mustRun(
    folder,
    `find . -path ./node_modules -prune -o -printf '%p %s %T@\\n' | sort`,
  );
}

/** Starts it with the migration lock in other hands, which let go once it is seen to wait. */
async function runWhileAnotherMigrates(command: string): Promise<{ running: Promise<Run> }> {
  const other = await database.pool.connect();
  try {
    await other.query(`select pg_advisory_lock(x'67696674'::int)`);
    const running = run(ROOT, command, env);
    const waiting = async () =>
      await other.query(
        `select from pg_stat_activity
          where datname = current_database() and application_name = 'gift-budgets migration lock'
            and query like '%pg_try_advisory_lock%'`,
      );
    await eventually(waiting, ({ rowCount }) => rowCount === 1, 120_000);
    const { rows } = await other.query(`select to_regclass('persons') as applied`);
    expect(rows).toEqual([{ applied: null }]);
    return { running };
  } finally {
    other.release(true);
  }
}
