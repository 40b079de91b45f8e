#!/usr/bin/env node
import { createRequire } from 'node:module';
import { Command } from 'commander';
import type { Logger } from 'pino';
import { configCommand } from './commands/config.ts';
import { type CommandContext, CommandError } from './commands/context.ts';
import { demoCommand } from './commands/demo.ts';
import { doctorCommand } from './commands/doctor.ts';
import { enqueueCommand } from './commands/enqueue.ts';
import { explainCommand } from './commands/explain.ts';
import { failuresCommand } from './commands/failures.ts';
import { fillCommand } from './commands/fill.ts';
import { grantsCommand } from './commands/grants.ts';
import { importCommand } from './commands/import.ts';
import { migrateCommand } from './commands/migrate.ts';
import { reachDatabase } from './commands/reach-database.ts';
import { repairCommand } from './commands/repair.ts';
import { showCommand } from './commands/show.ts';
import { startCommand } from './commands/start.ts';
import { statusCommand } from './commands/status.ts';
import { verifyCommand } from './commands/verify.ts';
import { type Config, ConfigError, loadConfig } from './config.ts';
import { showSettings } from './config-shown.ts';
import { createLogger } from './operations/log.ts';
import { openStores } from './stores.ts';

const NOT_MIGRATED = new Set(['42P01', '42703']); // undefined table, undefined column
const NOT_PERMITTED = '42501';

/** Signals this close together are one. */
const SAME_SIGNAL_MS = 500;

/** By its own name, which is right beside src and, compiled, beside dist. */
const { version } = createRequire(import.meta.url)('gift-budgets/package.json') as {
  version: string;
};

const interruption = new AbortController();

let config: Config | undefined;
let log: Logger | undefined;

const context: CommandContext = {
  config: () => (config ??= loadConfig(process.env)),
  settings: () => showSettings(process.env),
  log: () => (log ??= createLogger(context.config().logLevel)),
  async withStores(work, options) {
    const { databaseUrl, pooler } = context.config();
    if (options?.sessionFor !== undefined && pooler === 'transaction') {
      throw new CommandError(
        `${options.sessionFor} needs a session of its own, and GIFT_BUDGETS_POOLER=transaction says that ` +
          'DATABASE_URL leads to a pooler: name the server itself, and unset it',
      );
    }
    if (databaseUrl !== undefined && options?.privateServer !== true) {
      await reachDatabase(databaseUrl);
    }
    const stores = await openStores(context.config(), {
      applicationName: 'gift-budgets',
      ...options,
    });
    try {
      return await work(stores);
    } finally {
      await stores.close();
    }
  },
  withDatabase: async (work, options) =>
    await context.withStores(async ({ database }) => await work(database), options),
  print: (text) => process.stdout.write(`${text}\n`),
  warn: (text) => process.stderr.write(`${text}\n`),
  setExitCode: (code) => (process.exitCode = code),
  interrupted: interruption.signal,
};

const program = new Command('gift-budgets')
  .description('Keeps the stored total of every gift budget right, cheap to read, and fresh.')
  .version(version)
  .addHelpText(
    'after',
    `
DATABASE_URL (postgres://…) says where the database is; without it an embedded PostgreSQL is used.
REDIS_URL (redis://…) says where the queue is; without it the queue lives in PostgreSQL too.
"gift-budgets demo" shows it all at work; "gift-budgets help COMMAND" tells more of a command.

Exit codes: 0 done, 1 not done (the message says why), 130 interrupted. Some commands say more.`,
  )
  .showSuggestionAfterError()
  .addCommand(demoCommand(context))
  .addCommand(migrateCommand(context))
  .addCommand(grantsCommand(context))
  .addCommand(fillCommand(context))
  .addCommand(startCommand(context))
  .addCommand(configCommand(context))
  .addCommand(doctorCommand(context))
  .addCommand(importCommand(context))
  .addCommand(enqueueCommand(context))
  .addCommand(showCommand(context))
  .addCommand(explainCommand(context))
  .addCommand(statusCommand(context))
  .addCommand(failuresCommand(context))
  .addCommand(verifyCommand(context))
  .addCommand(repairCommand(context));

stopOnSignals();
endOnUncaughtErrors();
endQuietlyWhenNobodyReads();
try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`${describe(error)}\n`);
  process.exitCode = 1;
}
// A connection that is still being made somewhere must not keep a finished command alive.
process.exit();

/** The first signal asks the command to end; a later one does not ask. */
function stopOnSignals(): void {
  let askedAt = Infinity;
  for (const [signal, number] of [['SIGINT', 2] as const, ['SIGTERM', 15] as const]) {
    process.on(signal, () => {
      // One Ctrl-C comes twice where npm runs us: from the terminal, and handed on by npm.
      if (performance.now() - askedAt > SAME_SIGNAL_MS) {
        log?.warn('stopped at once: what was under way is done again by the next worker');
        process.exit(128 + number);
      }
      askedAt = Math.min(askedAt, performance.now());
      interruption.abort();
    });
  }
}

/** What nobody foresaw leaves a state that nobody knows: end, and let the next one begin anew. */
function endOnUncaughtErrors(): void {
  process.on('uncaughtException', (error, origin) => {
    if (log) log.fatal({ err: error, origin }, 'uncaught error');
    else process.stderr.write(`${describe(error)}\n`);
    process.exit(1);
  });
}

/** `gift-budgets show --all | head` is no error. */
function endQuietlyWhenNobodyReads(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `error: ${String(error)}`;
  if (error instanceof CommandError || error instanceof ConfigError)
    return `error: ${error.message}`;
  const { code } = error as { code?: string };
  if (code !== undefined && NOT_MIGRATED.has(code)) {
    return `error: ${error.message}: the database is not migrated; run "gift-budgets migrate"`;
  }
  if (code === NOT_PERMITTED) {
    return `error: ${error.message}: "gift-budgets help grants" says what each command needs`;
  }
  const message = error.message || code || error.name;
  return config?.logLevel === 'debug' ? `error: ${error.stack ?? message}` : `error: ${message}`;
}
