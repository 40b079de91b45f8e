import { Argument, Command } from 'commander';
import { GRANTEES, type Grantee, grantsSql } from '../grants.ts';
import type { CommandContext } from './context.ts';

interface GrantsCommandOptions extends Readonly<Record<Grantee, string>> {
  readonly schema: string;
  readonly queueSchema: string;
  readonly sendsEvents?: true;
  readonly owner?: string;
}

export function grantsCommand(context: CommandContext): Command {
  return new Command('grants')
    .summary('print the SQL of the roles that need no more than they have')
    .description(
      'Prints SQL that makes a role for each part, and grants it what it needs and no more. It ' +
        'connects to nothing: pipe it into psql, as a superuser or as the owner of database and ' +
        'tables, and run it again after every migration. The roles may log in, but have no ' +
        'password until you give them one: alter role gift_budgets_worker password …',
    )
    .addArgument(
      new Argument('[part...]', 'for whom; for all unless given').choices(GRANTEES).default([]),
    )
    .option('--migrator <role>', 'what the role of "migrate" is called', 'gift_budgets_migrator')
    .option('--worker <role>', 'what the role of "start" is called', 'gift_budgets_worker')
    .option('--reader <role>', 'what the role of readers is called', 'gift_budgets_reader')
    .option(
      '--upstream <role>',
      'what the role of a service that writes gifts is called',
      'gift_budgets_upstream',
    )
    .option('--schema <schema>', 'the schema of the tables', 'public')
    .option('--queue-schema <schema>', 'the schema of a queue in PostgreSQL', 'bullmq')
    .option(
      '--sends-events',
      'let the upstream add gift events to a queue in PostgreSQL, and so do all else there',
    )
    .option(
      '--owner <role>',
      'the owner of tables that were there before: the migrator becomes a member of it',
    )
    .addHelpText(
      'after',
      `
The migrator's part is for before the first migration, all others need the tables:
  gift-budgets grants migrator | psql "$ADMIN_URL" -v ON_ERROR_STOP=1
  DATABASE_URL=postgres://gift_budgets_migrator:…@host/db gift-budgets migrate
  gift-budgets grants | psql "$ADMIN_URL" -v ON_ERROR_STOP=1

Which role a command needs
  migrator  migrate, and mikro-orm migration:up
  worker    start, fill, repair, failures --retry, enqueue, status, and explain to tell who holds a row
  reader    show, verify, explain, failures, and BudgetReader in programs of your own
  upstream  import, and your service

Exit codes: 0 printed, 1 a part or an option is wrong (the message says which).`,
    )
    .action((parts: readonly Grantee[], options: GrantsCommandOptions) => {
      const { schema, queueSchema, sendsEvents = false, owner, ...roles } = options;
      const grantees = parts.length > 0 ? parts : GRANTEES;
      const sql = grantsSql(grantees, { roles, schema, queueSchema, sendsEvents, owner });
      context.print(sql.trimEnd());
    });
}
