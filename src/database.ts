import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import {
  defineConfig,
  MikroORM,
  type Options,
  type PostgreSqlConnection,
} from '@mikro-orm/postgresql';
import type pg from 'pg';
import { entities } from './entities/index.ts';
import type { Queryable } from './queryable.ts';
import { createMigrator } from './migrating/migrator.ts';
import type { RunnerOptions } from './migrating/runner.ts';

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
  /** How migrations are run. */
  readonly migrating?: RunnerOptions;
}

/**
 * The table of applied migrations: not MikroORM's usual name, because the database may well have such a
 * table already, of a service that is migrated by MikroORM too.
 */
export const MIGRATIONS_TABLE = 'gift_budgets_migrations';

const MIGRATIONS = fileURLToPath(new URL('../migrations', import.meta.url));

/** The MikroORM options, the same for the programs here and for the MikroORM CLI. */
export function mikroOrmOptions(url: string, options: OpenDatabaseOptions = {}): Options {
  return defineConfig({
    clientUrl: url,
    ...schemaOf(url),
    entities,
    extensions: [createMigrator(options.migrating)],
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
      tableName: MIGRATIONS_TABLE,
      path: MIGRATIONS,
      pathTs: MIGRATIONS,
      glob: 'Migration!(*.d).{js,ts}',
      // Each by itself: a lock is held for one step, and what is applied stays.
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
      skipTables: ['gift_budgets_objects'],
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
