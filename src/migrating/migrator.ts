import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrateOptions, MigrationInfo, MikroORM as AnyMikroORM } from '@mikro-orm/core';
import { Migrator as MikroOrmMigrator } from '@mikro-orm/migrations';
import pg from 'pg';
import { type Ask, mustBeAdoptable } from './adoption.ts';
import { Runner, type RunnerOptions } from './runner.ts';

/** The advisory lock of whoever migrates: "gift" in ASCII. */
const MIGRATION_LOCK = 0x67696674;
const MIGRATION_LOCK_POLL_MS = 100;

type MigratorClass = { register(orm: AnyMikroORM): void };

/**
 * MikroORM's migrator, one at a time: it has no lock of its own, and of five that migrate at the same
 * moment three or four fail. And it migrates only what can be adopted, with a runner that makes nobody
 * wait. The MikroORM CLI takes this class only because it has this very name.
 */
export function createMigrator(options: RunnerOptions = {}): MigratorClass {
  return class Migrator extends MikroOrmMigrator {
    static override register(orm: AnyMikroORM): void {
      orm.config.registerExtension(
        '@mikro-orm/migrator',
        () => new Migrator(orm.em as ConstructorParameters<typeof MikroOrmMigrator>[0]),
      );
    }

    override createRunner(): Runner {
      return new Runner(this.driver, this.options, this.config, options);
    }

    /** Creates the table of applied migrations, so a mere look at what is pending is locked too. */
    protected override async init(): Promise<void> {
      if (this.initialized) return;
      await this.#oneAtATime(async ({ isThere }) => {
        if (isThere) await this.#findSchema();
        await super.init();
      });
    }

    /** MikroORM looks for its table in public, wherever the search_path has it made. */
    async #findSchema(): Promise<void> {
      const [row] = await this.driver.execute<{ schema: string | null }[]>(
        'select current_schema() as schema',
      );
      const { tableName } = this.options;
      if (row!.schema === null || row!.schema === 'public' || tableName!.includes('.')) return;
      this.options.tableName = `${row!.schema}.${tableName}`;
    }

    protected override async runMigrations(
      method: 'up' | 'down',
      migrations?: string | string[] | MigrateOptions,
    ): Promise<MigrationInfo[]> {
      mustNotNameSchema(this.options.schema ?? schemaOf(migrations));
      return await this.#oneAtATime(async ({ isThere }) => {
        if (isThere) await this.#findSchema();
        if (method === 'up' && isThere) await this.#mustFit();
        // Here, where the lock is held: what calls it later finds it done.
        await super.init();
        return await super.runMigrations(method, migrations);
      });
    }

    /** Where nothing is pending, nothing is asked: what is adopted may go on changing. */
    async #mustFit(): Promise<void> {
      const ask: Ask = async (sql) => ({ rows: await this.driver.execute<object[]>(sql) });
      await this.initPaths();
      const known = (await this.discoverMigrations()).map(({ name }) => name);
      const applied = new Set(await readApplied(ask, this.options.tableName!));
      if (known.some((name) => !applied.has(name))) await mustBeAdoptable(ask);
    }

    /**
     * The lock is on a connection of its own, since the pool may have but two, and is polled: a waiter
     * inside pg_advisory_lock would hold a snapshot, which CREATE INDEX CONCURRENTLY waits for.
     */
    async #oneAtATime<T>(work: (database: { isThere: boolean }) => Promise<T>): Promise<T> {
      const client = new pg.Client({
        connectionString: this.config.get('clientUrl')!,
        application_name: 'gift-budgets migration lock',
      });
      client.on('error', () => {});
      try {
        await client.connect();
      } catch (error) {
        // No such database: the migrator is about to create it.
        if ((error as { code?: string }).code === '3D000') return await work({ isThere: false });
        throw error;
      }
      try {
        while (!(await isLocked(client))) await sleep(MIGRATION_LOCK_POLL_MS);
        return await work({ isThere: true });
      } finally {
        await client.end();
      }
    }
  };
}

function schemaOf(options: string | string[] | MigrateOptions | undefined): string | undefined {
  return typeof options === 'object' && !Array.isArray(options) ? options.schema : undefined;
}

/** MikroORM sets it for each statement, but not for what a migration asks before its first one. */
function mustNotNameSchema(schema: string | undefined): void {
  if (schema === undefined) return;
  throw new Error(
    `the option --schema cannot be used here: set the search_path of the role or the database instead ` +
      `(alter role … set search_path = ${schema})`,
  );
}

async function isLocked(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>(
    'select pg_try_advisory_lock($1) as locked',
    [MIGRATION_LOCK],
  );
  return rows[0]!.locked;
}

async function readApplied(ask: Ask, table: string): Promise<string[]> {
  const { rows } = await ask(`select to_regclass('${table}')::text as found`);
  const { found } = rows[0] as { found: string | null };
  if (found === null) return [];
  const applied = await ask(`select name from ${found}`);
  return applied.rows.map((row) => (row as { name: string }).name);
}
