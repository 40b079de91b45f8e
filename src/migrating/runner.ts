import { setTimeout as sleep } from 'node:timers/promises';
import type { Configuration, MigrationsOptions, Transaction } from '@mikro-orm/core';
import { type Migration, MigrationRunner } from '@mikro-orm/migrations';
import type { AbstractSqlDriver } from '@mikro-orm/postgresql';
import { describeHolders, MigrationLockError } from './lock-holders.ts';
import { LiveMigration, type MigrationStep, tableLocks } from './live-migration.ts';

export interface RunnerOptions {
  /** How long a migration is tried for whose locks others hold; ten minutes unless set. */
  readonly lockPatienceMs?: number;
  /** Told of each step; for rehearsals. */
  readonly watchSteps?: (step: MigrationStep) => void;
  /** Told each time that somebody was in the way. */
  readonly watchRetries?: () => void;
}

type Run = (sql: string) => Promise<object[]>;

const PATIENCE_MS = 600_000;
const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 1_000;
const TOLD_EVERY_MS = 10_000;

/**
 * Where transactions of 150 ms overlap all the time, a wait of 50 ms hardly ever meets a gap (not once in
 * four minutes with three that write so): after a few tries it is this long. A foreign key waits for two
 * tables in turn, so whoever stands behind it waits for twice as long: still less than a quarter of a second.
 */
const TRIES_IN_HASTE = 4;
const LOCK_TIMEOUT_PATIENT_MS = 80;

/** Lock not available, deadlock detected: somebody was in the way, and may be gone the next time. */
const IN_THE_WAY = new Set(['55P03', '40P01']);

/** The advisory lock of the connection that a live migration runs on: "live" in ASCII. */
const LIVE_LOCK = 0x6c697665;
const LIVE_LOCK_POLL_MS = 100;

/**
 * Whatever the role's or the server's defaults are: what is slow waits for others and is not cut off, and
 * each statement has a snapshot of its own. `lock_timeout` is set again by each short step.
 */
const SETTINGS = {
  lock_timeout: '0',
  statement_timeout: '0',
  idle_session_timeout: '0',
  default_transaction_isolation: `'read committed'`,
};

/**
 * Runs a migration until its locks are to be had, with pauses in which everybody else gets through.
 */
export class Runner extends MigrationRunner {
  readonly #options: RunnerOptions;

  constructor(
    driver: AbstractSqlDriver,
    options: MigrationsOptions,
    config: Configuration,
    runnerOptions: RunnerOptions,
  ) {
    super(driver, options, config);
    this.#options = runnerOptions;
  }

  override async run(
    migration: Migration,
    method: 'up' | 'down',
    afterRun?: (tx?: Transaction) => Promise<void>,
  ): Promise<void> {
    const startedAt = performance.now();
    const patienceMs = this.#options.lockPatienceMs ?? PATIENCE_MS;
    let pauseMs = PAUSE_MIN_MS;
    let toldAt = startedAt;
    for (let tries = 1; ; tries += 1) {
      try {
        if (!(migration instanceof LiveMigration)) {
          return await this.#runInTransaction(migration, method, afterRun);
        }
        if (tries > TRIES_IN_HASTE) migration.lockTimeoutMs = LOCK_TIMEOUT_PATIENT_MS;
        return await this.#runLive(migration, method, afterRun);
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === undefined || !IN_THE_WAY.has(code)) throw error;
        this.#options.watchRetries?.();
        const now = performance.now();
        if (now - startedAt > patienceMs) {
          throw new MigrationLockError(patienceMs, await this.#holders(), error as Error);
        }
        if (now - toldAt > TOLD_EVERY_MS) {
          toldAt = now;
          this.#tell(`still waiting for a lock: ${await this.#holders()}`);
        }
      }
      // Not in step with writers that do something at regular times.
      await sleep(pauseMs * (0.5 + Math.random()));
      pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 1.5);
    }
  }

  /**
   * All on one connection. It holds an advisory lock, because a process that is killed leaves a backend
   * that still runs its last statement: the next run begins when that one has ended, and the server, which
   * looks whether its client is there, ends it within a second or so.
   */
  async #runLive(
    migration: LiveMigration,
    method: 'up' | 'down',
    afterRun?: (tx?: Transaction) => Promise<void>,
  ): Promise<void> {
    const connection = this.driver.getConnection();
    await connection.ensureConnection();
    await connection
      .getClient()
      .connection()
      .execute(async (client) => {
        const ctx = client as unknown as Transaction;
        const run: Run = async (sql) => await this.driver.execute(sql, [], 'all', ctx);
        try {
          await begin(run);
          migration.reset();
          migration.watch = this.#options.watchSteps;
          migration.setTransactionContext(ctx);
          await migration[method]();
          await afterRun?.(ctx);
        } finally {
          await end(run);
        }
      });
  }

  async #runInTransaction(
    migration: Migration,
    method: 'up' | 'down',
    afterRun?: (tx?: Transaction) => Promise<void>,
  ): Promise<void> {
    const { watchSteps } = this.#options;
    const startedAt = performance.now();
    let locks: string[] = [];
    await super.run(migration, method, async (tx) => {
      await afterRun?.(tx);
      if (!watchSteps) return;
      const [row] = await this.driver.execute<{ locks: string[] }[]>(
        `select (${tableLocks('pg_backend_pid()')}) as locks`,
        [],
        'all',
        tx,
      );
      locks = row!.locks;
    });
    const statement = migration.getQueries().join(';\n');
    watchSteps?.({ statement, ms: performance.now() - startedAt, locks });
  }

  async #holders(): Promise<string> {
    return await describeHolders(async (sql) => await this.driver.execute(sql));
  }

  #tell(message: string): void {
    const enabled = this.options.silent !== true;
    this.config.getLogger().log('migrator', message, { enabled });
  }
}

async function begin(run: Run): Promise<void> {
  for (const [setting, value] of Object.entries(SETTINGS)) await run(`set ${setting} = ${value}`);
  // Not to be had on every system.
  await run(`set client_connection_check_interval = '1s'`).catch(() => {});
  for (;;) {
    const [row] = await run(`select pg_try_advisory_lock(${LIVE_LOCK}) as locked`);
    if ((row as { locked: boolean }).locked) return;
    await sleep(LIVE_LOCK_POLL_MS);
  }
}

/** The pool gets its connection back as it was; a broken one it finds out itself. */
async function end(run: Run): Promise<void> {
  const resets = [...Object.keys(SETTINGS), 'client_connection_check_interval'];
  const statements = [
    `select pg_advisory_unlock(${LIVE_LOCK})`,
    ...resets.map((s) => `reset ${s}`),
  ];
  await run(statements.join('; ')).catch(() => {});
}
