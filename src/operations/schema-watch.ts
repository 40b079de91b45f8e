import { setTimeout as sleep } from 'node:timers/promises';
import { MIGRATIONS_TABLE, type Queryable } from '../database.ts';
import type { Observer } from '../recalculation/observer.ts';

/** How the schema of the database compares with the one that this version was written for. */
export type SchemaFit =
  | { readonly state: 'fits' }
  /** Migrations that this version needs are not applied, or were undone. */
  | { readonly state: 'older'; readonly missing: readonly string[] }
  /** A later version has migrated the database. */
  | { readonly state: 'newer'; readonly unknown: readonly string[] };

export interface SchemaWatch {
  readonly observer: Observer;
  /** As it was seen last. */
  fit(): SchemaFit;
  /** Asks the database now. */
  readonly look: () => Promise<SchemaFit>;
  /** Has it told when it changes, and at once where it does not fit now. */
  onChange(listener: ChangeListener): void;
  /** Waits while the schema does not fit. */
  readonly untilFits: (signal: AbortSignal) => Promise<void>;
  stop(): Promise<void>;
}

type ChangeListener = (fit: SchemaFit) => void | Promise<void>;

const LOOK_MS = 2_000;
const GATE_POLL_MS = 100;

/** Undefined table, column, function: somebody may be migrating just now. */
const MISSING_CODES = new Set(['42P01', '42703', '42883']);
const UNDEFINED_TABLE = '42P01';

/**
 * Asks every few seconds which migrations are applied, because the schema may change under a
 * running worker: a rolling upgrade applies more, `migration:down` undoes some. What a statement
 * would do then is nobody's guess, so all work waits until the schema fits again. The marks wait
 * too, so nothing is lost by it.
 *
 * While the database does not answer nothing changes; the work's own retries see to that.
 *
 * @param known the names of the migrations that this version has, and needs.
 */
export async function startSchemaWatch(
  db: Queryable,
  known: readonly string[],
): Promise<SchemaWatch> {
  const listeners: ChangeListener[] = [];
  const stopping = new AbortController();
  let fit: SchemaFit = { state: 'fits' };
  let wakeUp = new AbortController();

  async function look(): Promise<SchemaFit> {
    const found = await readSchemaFit(db, known);
    const isChange = found.state !== fit.state;
    fit = found;
    if (isChange) await Promise.all(listeners.map(async (listener) => await listener(found)));
    return found;
  }

  async function watch(): Promise<void> {
    while (!stopping.signal.aborted) {
      await look().catch(() => {});
      wakeUp = new AbortController();
      const signal = AbortSignal.any([stopping.signal, wakeUp.signal]);
      await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
    }
  }

  await look().catch(() => {});
  const watching = watch();
  return {
    observer: {
      retry(_cause, error) {
        if (MISSING_CODES.has((error as { code?: string } | null)?.code ?? '')) wakeUp.abort();
      },
    },
    fit: () => fit,
    look,
    onChange(listener) {
      listeners.push(listener);
      if (fit.state !== 'fits') void listener(fit);
    },
    async untilFits(signal) {
      while (fit.state !== 'fits') await sleep(GATE_POLL_MS, undefined, { signal });
    },
    async stop() {
      stopping.abort();
      await watching;
    },
  };
}

/**
 * A later version's migration is one that this version does not know and whose name sorts behind all
 * that it knows: names begin with the time they were written.
 */
export async function readSchemaFit(db: Queryable, known: readonly string[]): Promise<SchemaFit> {
  const applied = await readApplied(db);
  const missing = known.filter((name) => !applied.has(name));
  if (missing.length > 0) return { state: 'older', missing };
  const newest = known.toSorted().at(-1) ?? '';
  const unknown = [...applied].filter((name) => name > newest).toSorted();
  return unknown.length > 0 ? { state: 'newer', unknown } : { state: 'fits' };
}

async function readApplied(db: Queryable): Promise<Set<string>> {
  try {
    const { rows } = await db.query(`select name from ${MIGRATIONS_TABLE}`);
    return new Set(rows.map(({ name }) => name as string));
  } catch (error) {
    if ((error as { code?: string }).code === UNDEFINED_TABLE) return new Set();
    throw error;
  }
}

export interface Misfit {
  readonly problem: string;
  /** What to do about it. */
  readonly todo: string;
  /** Whether that is something to type. */
  readonly isCommand: boolean;
}

/** Says what does not fit; null where nothing does. */
export function describeMisfit(fit: SchemaFit): Misfit | null {
  switch (fit.state) {
    case 'fits':
      return null;
    case 'older':
      return {
        problem: `the database lacks ${countMigrations(fit.missing)}, the first is ${fit.missing[0]}`,
        todo: 'gift-budgets migrate',
        isCommand: true,
      };
    case 'newer':
      return {
        problem: `a later version has migrated the database: ${fit.unknown[0]} is not known here`,
        todo: 'deploy that version here too',
        isCommand: false,
      };
  }
}

function countMigrations({ length }: readonly string[]): string {
  return `${length} migration${length === 1 ? '' : 's'} that this version needs`;
}
