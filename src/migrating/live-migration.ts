import { Migration } from '@mikro-orm/migrations';
import { forget, forgetTable, type MadeKind, remember } from './ledger.ts';

/** A step of a migration, for those who watch it. */
export interface MigrationStep {
  readonly statement: string;
  readonly ms: number;
  /** The tables that it had locked at its end, as 'MODE table'; null where it must be watched to know. */
  readonly locks: readonly string[] | null;
}

export interface AddedColumn {
  readonly definition: string;
  /** What holds for it alone: added NOT VALID, so without a look at the rows, and validated apart. */
  readonly constraint?: { readonly name: string; readonly definition: string };
}

/**
 * A migration of tables that others write to all the time, and may have made.
 *
 * Not one transaction, but short steps: each is sent as one message, so that its locks are held for what
 * the server does alone, not for the way between two statements. What builds or checks slowly is a
 * statement by itself, under a lock that no writer waits for. A lock that is not to be had within 50 ms
 * fails the step, and the runner begins the migration anew, after a pause. So each method here looks at
 * what is there first: it can be run again from wherever it was left, be it by a kill.
 *
 * What exists already, and was not made by us, stays as it is, in `up` and in `down`.
 */
export abstract class LiveMigration extends Migration {
  /** How long a lock is waited for: whoever comes behind us waits that long too. */
  lockTimeoutMs = 50;

  /** Called after each step. */
  watch: ((step: MigrationStep) => void) | undefined;

  override isTransactional(): boolean {
    return false;
  }

  /** Statements that are done in a moment, in one transaction. */
  protected async shortly(...statements: readonly string[]): Promise<void> {
    const message = [`set local lock_timeout = '${this.lockTimeoutMs}ms'`, ...statements];
    if (this.watch) message.push(NOTE_LOCKS);
    const startedAt = performance.now();
    await this.execute(message.join(';\n'));
    const ms = performance.now() - startedAt;
    const locks = this.watch ? await this.#notedLocks() : [];
    this.watch?.({ statement: statements.join(';\n'), ms, locks });
  }

  /**
   * One statement that takes its time, and waits for others as long as they need: its lock, SHARE UPDATE
   * EXCLUSIVE, makes no reader and no writer wait, neither while it is held nor while it is waited for.
   */
  protected async slowly(statement: string): Promise<void> {
    const startedAt = performance.now();
    await this.execute(statement);
    this.watch?.({ statement, ms: performance.now() - startedAt, locks: null });
  }

  protected async createTable(name: string, definition: string): Promise<void> {
    if (await this.#exists(name)) return;
    await this.shortly(`create table ${name} (${definition})`, remember('table', name));
  }

  /** Drops it if it is ours, with everything on it. */
  protected async dropTable(name: string): Promise<void> {
    if (!(await this.isOurs('table', name))) return;
    await this.shortly(`drop table ${name}`, forgetTable(name));
  }

  /** Adds the columns that are not there, with their constraints. Metadata only: defaults are constants. */
  protected async addColumns(
    table: string,
    columns: Readonly<Record<string, AddedColumn>>,
  ): Promise<void> {
    const there = await this.execute(
      `select attname as name from pg_attribute where attrelid = '${table}'::regclass and not attisdropped`,
    );
    const names = new Set(there.map((row) => (row as { name: string }).name));
    const missing = Object.entries(columns).filter(([name]) => !names.has(name));
    const constraints = missing.flatMap(([, { constraint }]) => constraint ?? []);
    if (missing.length > 0) {
      await this.shortly(
        `alter table ${table} ${[
          ...missing.map(([name, { definition }]) => `add column ${name} ${definition}`),
          ...constraints.map((c) => `add constraint ${c.name} ${c.definition} not valid`),
        ].join(', ')}`,
        ...missing.map(([name]) => remember('column', name, table)),
        ...constraints.map(({ name }) => remember('constraint', name, table)),
      );
    }
    for (const { constraint } of Object.values(columns)) {
      if (constraint) await this.#validate(table, constraint.name);
    }
  }

  /** Drops those of the columns that are ours; what was made for them goes along. */
  protected async dropColumns(table: string, names: readonly string[]): Promise<void> {
    const ours = await this.execute(
      `select name from gift_budgets_objects where kind = 'column' and on_table = '${table}'`,
    );
    const known = new Set(ours.map((row) => (row as { name: string }).name));
    const dropped = names.filter((name) => known.has(name));
    if (dropped.length === 0) return;
    const constraints = await this.execute(
      `select name from gift_budgets_objects m where kind = 'constraint' and on_table = '${table}'
          and exists (select from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid
                       where c.conrelid = '${table}'::regclass and c.conname = m.name
                         and a.attnum = any (c.conkey)
                         and a.attname in (${dropped.map((name) => `'${name}'`).join()}))`,
    );
    await this.shortly(
      `alter table ${table} ${dropped.map((name) => `drop column ${name}`).join(', ')}`,
      ...dropped.map((name) => forget('column', name, table)),
      ...constraints.map((row) => forget('constraint', (row as { name: string }).name, table)),
    );
  }

  /**
   * Builds an index beside the writers. One that a broken run left invalid, ours or not, serves nobody and
   * is built anew. That it is ours is noted before: a killed build cannot note it any more.
   */
  protected async buildIndex(name: string, table: string, definition: string): Promise<void> {
    const [index] = await this.execute(
      `select i.indisvalid as "isValid" from pg_index i join pg_class c on c.oid = i.indexrelid
        where c.relname = '${name}' and ${IN_CURRENT_SCHEMA}`,
    );
    if (index && (index as { isValid: boolean }).isValid) return;
    if (index) await this.slowly(`drop index concurrently ${name}`);
    await this.shortly(remember('index', name, table));
    await this.slowly(`create index concurrently ${name} on ${table} ${definition}`);
  }

  protected async dropIndex(name: string, table: string): Promise<void> {
    if (!(await this.isOurs('index', name, table))) return;
    await this.slowly(`drop index concurrently if exists ${name}`);
    await this.shortly(forget('index', name, table));
  }

  /** Sets a storage parameter of a table that has none of its own. */
  protected async setStorage(table: string, name: string, value: string): Promise<void> {
    const rows = await this.execute(
      `select from pg_class where oid = '${table}'::regclass
          and array_to_string(reloptions, ',') ~ '\\m${name}='`,
    );
    if (rows.length > 0) return;
    await this.shortly(
      `alter table ${table} set (${name} = ${value})`,
      remember('setting', name, table),
    );
  }

  protected async resetStorage(table: string, name: string): Promise<void> {
    if (!(await this.isOurs('setting', name, table))) return;
    await this.shortly(`alter table ${table} reset (${name})`, forget('setting', name, table));
  }

  /** Drops triggers of ours and what they execute. */
  protected async dropTriggers(
    table: string,
    triggers: readonly string[],
    functions: readonly string[],
  ): Promise<void> {
    await this.shortly(
      ...triggers.map((name) => `drop trigger if exists ${name} on ${table}`),
      ...functions.map((name) => `drop function if exists ${name}()`),
      ...triggers.map((name) => forget('trigger', name, table)),
      ...functions.map((name) => forget('function', name)),
    );
  }

  protected async isOurs(kind: MadeKind, name: string, table = ''): Promise<boolean> {
    const rows = await this.execute(
      `select from gift_budgets_objects
        where kind = '${kind}' and on_table = '${table}' and name = '${name}'`,
    );
    return rows.length > 0;
  }

  /** The schema that unqualified tables are created in, quoted. */
  protected async currentSchema(): Promise<string> {
    const [row] = await this.execute('select quote_ident(current_schema()) as schema');
    return (row as { schema: string }).schema;
  }

  async #exists(table: string): Promise<boolean> {
    const rows = await this.execute(
      `select from pg_class c where c.relname = '${table}' and ${IN_CURRENT_SCHEMA}`,
    );
    return rows.length > 0;
  }

  async #validate(table: string, constraint: string): Promise<void> {
    const [found] = await this.execute(
      `select convalidated as "isValid" from pg_constraint
        where conrelid = '${table}'::regclass and conname = '${constraint}'`,
    );
    if (!found || (found as { isValid: boolean }).isValid) return;
    await this.slowly(`alter table ${table} validate constraint ${constraint}`);
  }

  async #notedLocks(): Promise<string[]> {
    const [row] = await this.execute(`select current_setting('gift_budgets.step_locks') as locks`);
    return JSON.parse((row as { locks: string }).locks) as string[];
  }
}

const IN_CURRENT_SCHEMA = `c.relnamespace =
  (select oid from pg_namespace where nspname = current_schema())`;

/** The tables that a backend has locked, as 'MODE table'. */
export function tableLocks(pid: string): string {
  return `select coalesce(json_agg(distinct l.mode || ' ' || c.relname), '[]')
     from pg_locks l join pg_class c on c.oid = l.relation
    where l.pid = ${pid} and l.granted and c.relkind = 'r' and ${IN_CURRENT_SCHEMA}`;
}

const NOTE_LOCKS = `select set_config('gift_budgets.step_locks', (${tableLocks('pg_backend_pid()')})::text, false)`;
