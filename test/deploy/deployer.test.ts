import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { pendingMigrations } from '../../src/database.ts';
import { eventually } from '../support/budgets.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const MIGRATIONS = (await readdir(join(REPOSITORY, 'migrations'))).length;
const MIGRATION_NAME = /Migration2\d+_\w+/g;
const INSTALL = '--prefer-offline --no-audit --no-fund --loglevel=error';

// Each starts a dozen processes, and npm may have to download.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

let parent: string;
let database: TestDatabase;

beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'deploy-'));
});
afterAll(async () => {
  await rm(parent, { recursive: true });
});
beforeEach(async () => {
  database = await createEmptyDatabase();
});
afterEach(async () => {
  await database.close();
});

describe('with the MikroORM CLI, in the repository', () => {
  it('migrates an empty database after whoever migrates it already, and says what it does', async () => {
    const pending = await run(REPOSITORY, 'npx mikro-orm migration:pending');
    expect(pending.out.match(MIGRATION_NAME)).toHaveLength(MIGRATIONS);
    const { running } = await runWhileAnotherMigrates('npx mikro-orm migration:up');
    expect(await running).toMatchObject({
      code: 0,
      out: expect.stringContaining('Successfully migrated'),
    });
    expect(await pendingMigrations(database)).toEqual([]);
    const check = await run(REPOSITORY, 'npx mikro-orm migration:check');
    expect(check).toMatchObject({ code: 0, out: expect.stringContaining('No changes required') });
    await database.pool.query('alter table persons add column nickname text');
    expect((await run(REPOSITORY, 'npx mikro-orm migration:check')).code).not.toBe(0);
  });

  it('without DATABASE_URL says so, and fails', async () => {
    const { code, err, out } = await run(REPOSITORY, 'npx mikro-orm migration:up', {
      DATABASE_URL: '',
    });
    expect(code).not.toBe(0);
    expect(`${out}${err}`).toContain('DATABASE_URL is not set: it names the PostgreSQL database');
    expect(out).not.toContain('Successfully migrated');
    expect(await pendingMigrations(database)).toHaveLength(MIGRATIONS);
  });
});

describe('installed without what development needs', () => {
  let checkout: string;

  beforeAll(async () => {
    checkout = await copyRepository('checkout');
    await mustRun(checkout, `npm ci --omit=dev ${INSTALL}`);
  });

  it('a checkout migrates with the MikroORM CLI the same way', async () => {
    expect(existsSync(join(checkout, 'node_modules/vitest'))).toBe(false);
    await mustRun(checkout, 'npx mikro-orm migration:up');
    expect(await pendingMigrations(database)).toEqual([]);
    await mustRun(checkout, 'npx mikro-orm migration:check');
    const pending = await mustRun(checkout, 'npx mikro-orm migration:pending');
    expect(pending).not.toMatch(MIGRATION_NAME);
  });

  it('the published package brings its command, its migrations and its modules', async () => {
    const source = await copyRepository('package');
    await symlink(join(REPOSITORY, 'node_modules'), join(source, 'node_modules'));
    // npm pack builds first.
    const packed = await mustRun(source, 'npm pack --loglevel=error');
    const tarball = join(source, packed.trim().split('\n').at(-1)!);

    // npm install asks the registry about every package, for minutes here; what it would make is a
    // folder with the dependencies of the checkout and, among them, the package.
    const folder = join(parent, 'adopter');
    const installed = join(folder, 'node_modules/gift-budgets');
    await mkdir(folder);
    await rename(join(checkout, 'node_modules'), join(folder, 'node_modules'));
    await mkdir(installed);
    await mustRun(installed, `tar -xzf ${tarball} --strip-components=1`);
    const command = join(folder, 'node_modules/.bin/gift-budgets');
    await symlink('../gift-budgets/dist/src/cli.js', command);
    await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }');

    expect(await mustRun(folder, 'npx gift-budgets --help')).toContain('Usage: gift-budgets');
    expect(await mustRun(folder, 'npx gift-budgets migrate')).toContain('up to date');
    expect(await pendingMigrations(database)).toEqual([]);
    expect(await database.orm.migrator.checkSchema()).toBe(false);
    await writeFile(
      join(folder, 'use.js'),
      `import { BudgetReader, GiftEventClient } from 'gift-budgets';
       console.log(typeof BudgetReader, typeof GiftEventClient);`,
    );
    expect(await mustRun(folder, 'node use.js')).toBe('function function\n');
  });
});

/** Starts it with the migration lock in other hands, which let go once it is seen to wait. */
async function runWhileAnotherMigrates(command: string): Promise<{ running: Promise<Run> }> {
  const other = await database.pool.connect();
  try {
    await other.query(`select pg_advisory_lock(x'67696674'::int)`);
    const running = run(REPOSITORY, command);
    const waiting = async () =>
      await other.query(
        `select from pg_stat_activity
          where datname = current_database() and application_name = 'gift-budgets migration lock'
            and query like '%pg_try_advisory_lock%'`,
      );
    await eventually(waiting, ({ rowCount }) => rowCount === 1);
    const { rows } = await other.query(`select to_regclass('persons') as applied`);
    expect(rows).toEqual([{ applied: null }]);
    return { running };
  } finally {
    other.release(true);
  }
}

/** The files that are tracked or could be, as they are in the working tree. */
async function copyRepository(name: string): Promise<string> {
  const copy = join(parent, name);
  // A checkout may well belong to another user than the one who tests it.
  const git = `git -c 'safe.directory=*'`;
  const listed = await mustRun(REPOSITORY, `${git} ls-files --cached --others --exclude-standard`);
  for (const file of listed.trim().split('\n')) {
    // Not there: removed, but not committed yet.
    if (existsSync(join(REPOSITORY, file))) await cp(join(REPOSITORY, file), join(copy, file));
  }
  return copy;
}

interface Run {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

async function mustRun(cwd: string, command: string): Promise<string> {
  const { code, out, err } = await run(cwd, command);
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${out}${err}`);
  return out;
}

/** Runs a command as somebody types it there, with the Node that `engines` asks for on the PATH. */
async function run(cwd: string, command: string, env: NodeJS.ProcessEnv = {}): Promise<Run> {
  const child = spawn(command, {
    cwd,
    shell: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...typistsEnvironment(), DATABASE_URL: database?.url, ...env },
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out, err };
}

/** Ours, without what npm and the test runner put there for this run: npm would take our folder for its. */
function typistsEnvironment(): NodeJS.ProcessEnv {
  const ours =
    /^(npm_(?!config_(cache|registry|userconfig)$)|INIT_CWD$|NODE|VITEST|TEST|NO_COLOR|FORCE_COLOR)/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
  const path = (env.PATH ?? '').split(delimiter).filter((way) => !way.includes('node_modules'));
  return { ...env, PATH: [dirname(process.execPath), ...path].join(delimiter), NO_COLOR: '1' };
}
