import { readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { MigrateOptions, MigrationInfo, MikroORM as AnyMikroORM } from '@mikro-orm/core';
import { Migrator as MikroOrmMigrator } from '@mikro-orm/migrations';
import {
  defineConfig,
  MikroORM,
  type Options,
  type PostgreSqlConnection,
} from '@mikro-orm/postgresql';
import pg from 'pg';
import { entities } from './entities/index.ts';
import type { Queryable } from './queryable.ts';

export type { Queryable };

/** A connection that parses and plans a statement once, under its name. */
export interface Session extends Queryable {
  query(
    statement:
      | string
      | { readonly name: string; readonly text: string; readonly values: unknown[] },
    values?: unknown[],
  ): Promise<{ rows: Record<string, unknown>[] }>;
}

/** An open database: MikroORM for the schema, and its own pool for the statements that are ours. */
export interface Database {
  readonly orm: MikroORM;
  readonly pool: pg.Pool;
  close(): Promise<void>;
}

export interface OpenDatabaseOptions {
  /** Shown to those who look at pg_stat_activity. */
  readonly applicationName?: string;
  /** The most connections of the pool; 10 unless set. */
  readonly poolMax?: number;
  /** Whether a pooler in transaction mode stands before the server. */
  readonly pooled?: boolean;
  /** Whether the migrator says what it does on standard output, as its CLI should. */
  readonly tellMigrations?: boolean;
}

/** The advisory lock of whoever migrates: "gift" in ASCII. */
const MIGRATION_LOCK = 0x67696674;
const MIGRATION_LOCK_POLL_MS = 100;

const MIGRATIONS = fileURLToPath(new URL('../migrations', import.meta.url));

/** The MikroORM options, the same for the programs here and for the MikroORM CLI. */
export function mikroOrmOptions(url: string, options: OpenDatabaseOptions = {}): Options {
  return defineConfig({
    clientUrl: url,
    ...schemaOf(url),
    entities,
    extensions: [Migrator],
    pool: { min: 0, max: options.poolMax ?? 10 },
    driverOptions: {
      application_name: options.applicationName ?? 'gift-budgets',
      // The first connection is there before anybody could have the pool.
      onPoolCreated: (pool: pg.Pool) => {
        if (options.pooled === true) pool.on('connect', prepareNothing);
      },
    },
    // Compiled or not, the migrations lie beside src, and are what this very file is: .ts or .js.
    preferTs: import.meta.url.endsWith('.ts'),
    migrations: {
      path: MIGRATIONS,
      pathTs: MIGRATIONS,
      glob: 'Migration!(*.d).{js,ts}',
      // Each in a transaction of its own: a lock is held for one step, and what is applied stays.
      transactional: true,
      allOrNothing: false,
      // Without a snapshot file migration:check asks the database itself.
      snapshot: false,
      silent: options.tellMigrations !== true,
    },
    schemaGenerator: {
      // What only the migrations make: the diff must not drop it.
      ignoreSchema: ['bullmq'],
      ignoreTriggers: true,
      ignoreRoutines: true,
      skipViews: ['budget_contributions', 'budget_status'],
    },
  });
}

/** The schema that the connections of this URL make tables in, where it says so. */
function schemaOf(url: string): { schema?: string } {
  const options = new URL(url).searchParams.get('options') ?? '';
  const schema = /(?:^|\s)(?:-c\s*|--)search_path=["']?([^\s,"']+)/.exec(options)?.[1];
  return schema === undefined ? {} : { schema };
}

/**
 * Statements lose their names: behind a pooler in transaction mode each transaction may be on another
 * connection of the server, which knows nothing of what was prepared on the last one.
 */
function prepareNothing(client: pg.PoolClient): void {
  const query = client.query.bind(client) as (statement: unknown, ...others: unknown[]) => unknown;
  const nameless = (statement: unknown): unknown =>
    typeof statement === 'object' &&
    statement !== null &&
    'name' in statement &&
    'text' in statement
      ? { ...statement, name: undefined }
      : statement;
  Object.assign(client, {
    query: (statement: unknown, ...others: unknown[]) => query(nameless(statement), ...others),
  });
}

/**
 * Opens the database; no connection is made before the first statement.
 *
 * @param url postgres:// or postgresql://
 */
export async function openDatabase(
  url: string,
  options: OpenDatabaseOptions = {},
): Promise<Database> {
  const orm = await MikroORM.init(mikroOrmOptions(url, options));
  const pool = await (orm.em.getConnection() as PostgreSqlConnection).getNativeClient();
  return { orm, pool, close: async () => await orm.close(true) };
}

/** The names of the migrations that this version has, and needs. */
export async function knownMigrations(): Promise<string[]> {
  const files = await readdir(MIGRATIONS);
  return files.flatMap((file) => /^(Migration[^.]*)\.[jt]s$/.exec(file)?.[1] ?? []);
}

/** Applies the migrations that are missing, and returns their names. */
export async function migrate({ orm }: Database): Promise<string[]> {
  return (await orm.migrator.up()).map(({ name }) => name);
}

/** The names of the migrations that are missing. */
export async function pendingMigrations({ orm }: Database): Promise<string[]> {
  return (await orm.migrator.getPending()).map(({ name }) => name);
}

/**
 * MikroORM's migrator, one at a time: it has no lock of its own, and of five that migrate at the same
 * moment three or four fail. The MikroORM CLI takes this class only because it has this very name.
 */
class Migrator extends MikroOrmMigrator {
  static override register(orm: AnyMikroORM): void {
    orm.config.registerExtension(
      '@mikro-orm/migrator',
      () => new Migrator(orm.em as ConstructorParameters<typeof MikroOrmMigrator>[0]),
    );
  }

  /** Creates the table of applied migrations, so a mere look at what is pending is locked too. */
  protected override async init(): Promise<void> {
    if (!this.initialized) await this.#oneAtATime(async () => await super.init());
  }

  protected override async runMigrations(
    method: 'up' | 'down',
    options?: string | string[] | MigrateOptions,
  ): Promise<MigrationInfo[]> {
    await this.init();
    return await this.#oneAtATime(async () => await super.runMigrations(method, options));
  }

  /**
   * The lock is on a connection of its own, since the pool may have but two, and is polled: a waiter
   * inside pg_advisory_lock would hold a snapshot, which CREATE INDEX CONCURRENTLY waits for.
   */
  async #oneAtATime<T>(work: () => Promise<T>): Promise<T> {
    const client = new pg.Client({
      connectionString: this.config.get('clientUrl')!,
      application_name: 'gift-budgets migration lock',
    });
    client.on('error', () => {});
    try {
      await client.connect();
    } catch (error) {
      // No such database: the migrator is about to create it.
      if ((error as { code?: string }).code === '3D000') return await work();
      throw error;
    }
    try {
      while (!(await isLocked(client))) await sleep(MIGRATION_LOCK_POLL_MS);
      return await work();
    } finally {
      await client.end();
    }
  }
}

async function isLocked(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>(
    'select pg_try_advisory_lock($1) as locked',
    [MIGRATION_LOCK],
  );
  return rows[0]!.locked;
}
