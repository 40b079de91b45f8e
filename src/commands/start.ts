import { Command } from 'commander';
import { once } from 'node:events';
import { startApp } from '../app.ts';
import { pendingMigrations } from '../database.ts';
import { findEviction } from '../operations/redis-check.ts';
import { CommandError, type CommandContext } from './context.ts';

export function startCommand(context: CommandContext): Command {
  return new Command('start')
    .summary('keep the totals right: worker, catch-up and queue page')
    .description(
      'Serves gift events, recalculates what is marked as changed, and shows the queue on a page\n' +
        'of its own. Any number of these may run at the same time on the same stores.\n' +
        'Stops cleanly on SIGTERM and Ctrl-C: what runs is finished, the rest goes back.',
    )
    .addHelpText('after', '\nExit codes: 0 stopped when asked to, 1 could not start.')
    .action(async () => {
      const log = context.log();
      await context.withStores(
        async (stores) => {
          const pending = await pendingMigrations(stores.database);
          if (pending.length > 0) {
            throw new CommandError(
              `the database lacks ${pending.length} migrations (the first is ${pending[0]}): ` +
                'run "gift-budgets migrate" or "mikro-orm migration:up"',
            );
          }
          if (stores.queue.backend === 'redis') {
            const eviction = await findEviction(stores.queue.url);
            if (eviction !== null) log.warn(eviction);
          }
          const app = await startApp(context.config(), stores, log);
          log.info({ backend: stores.queue.backend, queues: app.dashboard?.url }, 'started');
          if (!context.interrupted.aborted) await once(context.interrupted, 'abort');
          log.info('stopping');
          await app.stop();
          log.info('stopped');
        },
        { applicationName: 'gift-budgets worker' },
      );
    });
}
