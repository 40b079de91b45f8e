import { Command } from 'commander';
import type { CommandContext } from '../../src/commands/context.ts';
import type { Database } from '../../src/database.ts';
import type { QueueConnection } from '../../src/queue.ts';
import type { Grantee } from '../../src/grants.ts';
import type { Stores } from '../../src/stores.ts';
import type { Access } from './servers.ts';

/** The stores a command is given; those that it must not ask for may be missing. */
export interface CommandStores
  extends Pick<Database, 'pool'>, Partial<Record<Grantee, Pick<Access, 'pool'>>> {
  readonly queue?: QueueConnection;
}

/** The role that each command needs no more than; the help of `gift-budgets grants` says the same. */
function roleFor(args: readonly string[]): Grantee {
  const [command = ''] = args;
  if (command === 'import') return 'upstream';
  if (command === 'failures' && args.includes('--retry')) return 'worker';
  return ['show', 'verify', 'failures'].includes(command) ? 'reader' : 'worker';
}

export interface CommandRun {
  /** What went to standard output, with a line break behind each print. */
  readonly out: string;
  /** What went to standard error. */
  readonly err: string;
  readonly exitCode: number;
}

/**
 * Runs a command on stores as the command line would, in this process.
 *
 * @param args what a user types behind `gift-budgets`, the name of the command first.
 * @param onPrint called after each print; it may abort `interrupt`, as Ctrl-C does.
 * @throws what the command throws; a CommanderError where commander refuses the arguments.
 */
export async function runCommand(
  create: (context: CommandContext) => Command,
  stores: CommandStores,
  args: readonly string[],
  onPrint: (interrupt: AbortController) => void = () => {},
): Promise<CommandRun> {
  const run = { out: '', err: '', exitCode: 0 };
  const interrupt = new AbortController();
  const unavailable = (): never => {
    throw new Error('this command was not given that by the test');
  };
  const { pool } = stores[roleFor(args)] ?? stores;
  const database = { ...stores, pool } as Database;
  const command = create({
    config: unavailable,
    settings: unavailable,
    log: unavailable,
    async withStores(work) {
      const { queue } = stores;
      return queue ? await work({ database, queue } as Stores) : unavailable();
    },
    withDatabase: async (work) => await work(database),
    print(text) {
      run.out += `${text}\n`;
      onPrint(interrupt);
    },
    warn: (text) => (run.err += `${text}\n`),
    setExitCode: (code) => (run.exitCode = code),
    interrupted: interrupt.signal,
  });
  const output = {
    writeOut: (text: string) => (run.out += text),
    writeErr: (text: string) => (run.err += text),
  };
  command.exitOverride().configureOutput(output);
  const program = new Command('gift-budgets').exitOverride().configureOutput(output);
  await program.addCommand(command).parseAsync(args, { from: 'user' });
  return run;
}
