import { Command } from 'commander';
import { once } from 'node:events';
import { startApp } from '../app.ts';
import { knownMigrations } from '../database.ts';
import { WORKER_NAME } from '../operations/doctor/work.ts';
import { findEviction } from '../operations/redis-check.ts';
import { readSchemaFit } from '../operations/schema-watch.ts';
import { credentialsOf } from '../operations/serve-pages.ts';
import { findExposure } from '../operations/web-server.ts';
import { mustHaveQueueTables } from './queue-tables.ts';
import { CommandError, type CommandContext } from './context.ts';

export function startCommand(context: CommandContext): Command {
  return new Command('start')
    .summary('keep the totals right: worker, catch-up, sweeps and pages')
    .description(
      'Serves gift events, recalculates what is marked as changed, and shows how things stand on ' +
        'pages of its own (http://127.0.0.1:3000 unless set). Any number of these may run at the same time on the same stores. ' +
        'Stops cleanly on SIGTERM and Ctrl-C: what runs is finished, the rest goes back.',
    )
    .addHelpText('after', '\nExit codes: 0 stopped when asked to, 1 could not start.')
    .action(async () => {
      const config = context.config();
      const log = context.log();
      const exposure = findExposure({
        host: config.dashboardHost,
        credentials: credentialsOf(config),
      });
      if (exposure !== null) throw new CommandError(exposure);
      await context.withStores(
        async (stores) => {
          const fit = await readSchemaFit(stores.database.pool, await knownMigrations());
          if (fit.state === 'older') {
            throw new CommandError(
              `the database is not migrated (the first of ${fit.missing.length} missing migrations ` +
                `is ${fit.missing[0]}): run "gift-budgets migrate"`,
            );
          }
          await mustHaveQueueTables(stores);
          if (stores.queue.backend === 'redis') {
            const eviction = await findEviction(stores.queue.url);
            if (eviction !== null) log.warn(eviction);
          }
          const app = await startApp(config, stores, log).catch(explain);
          log.info({ backend: stores.queue.backend, pages: app.pages?.url }, 'started');
          if (!context.interrupted.aborted) await once(context.interrupted, 'abort');
          log.info('stopping');
          await app.stop();
          log.info('stopped');
        },
        { applicationName: WORKER_NAME },
      );
    });
}

function explain(error: unknown): never {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') throw error;
  throw new CommandError(
    `the pages cannot be served: ${message}; choose another GIFT_BUDGETS_DASHBOARD_PORT ` +
      '(0: any free one) or GIFT_BUDGETS_DASHBOARD_HOST',
  );
}
