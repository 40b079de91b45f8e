// Runs the migrations on a large database that others made, while others write to it, and says what each
// step took, what it locked, and how long it kept a writer waiting.
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import pg from 'pg';
import { migrate, openDatabase } from '../src/database.ts';
import { startEmbeddedPostgres } from '../src/embedded/server.ts';
import type { MigrationStep } from '../src/migrating/live-migration.ts';
import { type BlockedWatch, watchBlocked } from './rehearsal/blocked.ts';
import { makeOthersDatabase } from './rehearsal/others-database.ts';
import { startWriters } from './rehearsal/writers.ts';

interface Options {
  readonly budgets: number;
  readonly assignments: number;
  readonly writers: number;
  readonly limit: number;
  readonly withOccasions: boolean;
}

const APPLICATION = 'gift-budgets rehearsed migration';

/** Writers alone, before and after, so that what they do by themselves is seen too. */
const ALONE_MS = 1_000;

/** Locks that every reader or writer takes. */
const HARMLESS = /^(AccessShare|RowShare|RowExclusive)Lock /;

const options = new Command('rehearse-migrations')
  .description(
    'Makes a database of its own on the server that DATABASE_URL names, or on an embedded one, with ' +
      'tables as others make them; migrates it while others write to it; and drops it.',
  )
  .option('--budgets <count>', 'rows of person_occasions', positive, 2_000_000)
  .option('--assignments <count>', 'rows of gift_persons', positive, 5_000_000)
  .option('--writers <count>', 'how many write meanwhile', positive, 4)
  .option('--limit <ms>', 'how long a writer may be blocked at most', positive, 250)
  .option('--with-occasions', 'assignments have an occasion and an amount already', false)
  .addHelpText(
    'after',
    '\nExit codes: 0 nobody was blocked for longer, and no writer failed; else 1.',
  )
  .parse()
  .opts<Options>();

process.exitCode = (await onServer(rehearse)) ? 0 : 1;

function positive(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('a whole number above 0 is needed.');
}

async function onServer(work: (url: string) => Promise<boolean>): Promise<boolean> {
  const given = process.env.DATABASE_URL;
  const embedded = given ? null : await startEmbeddedPostgres();
  const server = new pg.Client({ connectionString: given || embedded!.url });
  await server.connect();
  const name = `gift_budgets_rehearsal_${process.pid}`;
  await server.query(`create database ${name}`);
  try {
    const url = new URL(given || embedded!.url);
    url.pathname = `/${name}`;
    return await work(url.href);
  } finally {
    await server.query(`drop database ${name} with (force)`);
    await server.end();
    await embedded?.stop();
  }
}

async function rehearse(url: string): Promise<boolean> {
  await make(url);
  const writers = await startWriters(url, options.writers, options);
  const watch = await watchBlocked(url, APPLICATION);
  let aloneMs: number;
  let tries: number;
  const startedAt = performance.now();
  try {
    await sleep(ALONE_MS);
    aloneMs = writers.written.slowestMs;
    tries = await migrateWatched(url, watch);
    await sleep(ALONE_MS);
  } finally {
    await watch.stop();
    await writers.stop();
  }

  const { transactions, slowestMs, failures } = writers.written;
  const { longestMs, by, waits, samples } = watch.blocked;
  const seconds = (performance.now() - startedAt - 2 * ALONE_MS) / 1000;
  console.log(`
migrated in ${seconds.toFixed(1)} s; ${count(tries, 'time')} a lock was not to be had at once, and was tried again
writers: ${count(transactions, 'transaction')}, ${failures.length} failed; slowest statement ${slowestMs.toFixed(0)} ms (before the migration ${aloneMs.toFixed(0)} ms)
blocked by the migration: ${count(waits, 'wait')} seen in ${count(samples, 'look')}; the longest ${longestMs.toFixed(0)} ms, ${options.limit} ms allowed`);
  if (longestMs > 0) console.log(`  by: ${short(by)}`);
  for (const failure of new Set(failures)) console.log(`  failed: ${failure}`);
  return longestMs <= options.limit && failures.length === 0;
}

async function make(url: string): Promise<void> {
  const { budgets, assignments } = options;
  console.log(`making ${count(budgets, 'budget')} and ${count(assignments, 'assignment')} …`);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await makeOthersDatabase(client, options);
  await client.end();
}

/** @returns how often a migration was tried again. */
async function migrateWatched(url: string, watch: BlockedWatch): Promise<number> {
  let tries = 0;
  const database = await openDatabase(url, {
    applicationName: APPLICATION,
    migrating: {
      watchSteps: (step) => tell(step, watch.locksOf(step.statement)),
      watchRetries: () => (tries += 1),
    },
  });
  database.orm.migrator.on('migrating', ({ name }) => console.log(`\n${name}`));
  try {
    await migrate(database);
  } finally {
    await database.close();
  }
  return tries;
}

function tell({ statement, ms, locks }: MigrationStep, seen: readonly string[]): void {
  const told = (locks ?? seen).filter((lock) => !HARMLESS.test(lock)).toSorted();
  console.log(`${ms.toFixed(1).padStart(10)} ms  ${short(statement)}`);
  if (told.length > 0) console.log(`${' '.repeat(15)}${told.join(', ')}`);
}

function short(statement: string): string {
  const line = statement.replaceAll(/\s+/g, ' ').replace(/^(set [^;]*; *|; *)+/, '');
  return line.length > 100 ? `${line.slice(0, 99)}…` : line;
}

function count(number: number, what: string): string {
  return `${number.toLocaleString('en')} ${what}${number === 1 ? '' : 's'}`;
}
