import { Command } from 'commander';
import { migrate } from '../database.ts';
import { prepareQueue } from '../queue.ts';
import type { Stores } from '../stores.ts';
import type { CommandContext } from './context.ts';

export function migrateCommand(context: CommandContext): Command {
  return new Command('migrate')
    .summary('bring the database schema up to date')
    .description(
      'Applies the migrations that the database lacks, and creates the tables of the queue where ' +
        'it lives in PostgreSQL. Safe to run again: what is there already stays as it is.',
    )
    .addHelpText('after', '\nExit codes: 0 up to date, 1 not done (the message says why).')
    .action(async () => {
      const migrating = async ({ database, queue, embedded }: Stores): Promise<void> => {
        const applied = await migrate(database);
        await prepareQueue(queue);
        for (const name of applied) context.print(`applied ${name}`);
        if (embedded) context.print('The embedded database is up to date.');
        else if (applied.length === 0)
          context.print('Nothing to apply: the database is up to date.');
        else context.print('The database is up to date.');
      };
      await context.withStores(migrating, { sessionFor: 'the lock of who migrates' });
    });
}
