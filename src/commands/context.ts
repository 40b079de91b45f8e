import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import type { ShownSetting } from '../config-shown.ts';
import type { Database } from '../database.ts';
import type { OpenStoresOptions, Stores } from '../stores.ts';

/** What the commands are given: the world outside, so that none of them reads or writes it itself. */
export interface CommandContext {
  /** Read on first use, so that help needs no valid environment. */
  readonly config: () => Config;
  /** The settings for people to read, without secrets. */
  readonly settings: () => ShownSetting[];
  readonly log: () => Logger;
  /** Opens the stores for the time of the work, and closes them after it. */
  withStores<T>(
    work: (stores: Stores) => Promise<T>,
    options?: Partial<OpenStoresOptions>,
  ): Promise<T>;
  /** The same for those who need the database alone. */
  withDatabase<T>(
    work: (database: Database) => Promise<T>,
    options?: Partial<OpenStoresOptions>,
  ): Promise<T>;
  /** Writes a line to standard output. */
  print(text: string): void;
  /** Writes a line to standard error: progress, warnings. */
  warn(text: string): void;
  /** The code the process exits with once the command is done; 0 unless set. */
  setExitCode(code: number): void;
  /** Aborted by SIGINT or SIGTERM; a command that lasts ends its work then. */
  readonly interrupted: AbortSignal;
}

/** A problem for the user to solve: shown as its message alone, exit code 1. */
export class CommandError extends Error {
  readonly code = 'COMMAND_FAILED';
  override readonly name = 'CommandError';
}
