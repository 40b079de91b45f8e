import { Command, Option } from 'commander';
import { knownMigrations } from '../database.ts';
import { count } from '../operations/diagnosis.ts';
import { type CheckedFinding, examine, type Examined } from '../operations/doctor/examine.ts';
import { CommandError, type CommandContext } from './context.ts';
import { reachDatabase } from './reach-database.ts';
import { printable } from './table.ts';

type Format = 'text' | 'json';

export function doctorCommand(context: CommandContext): Command {
  return new Command('doctor')
    .summary('look for what is wrong with the servers and the schema, and say what to type')
    .description(
      'Looks at all that the work rests on: servers, clocks, migrations, triggers, indexes, ' +
        'privileges, settings, who holds budgets, and Redis. For each thing that is not as it ' +
        'should be it says what it means and what to type. It changes nothing. Run it with the ' +
        'settings and the role of the workers, since it tells what that role may do.',
    )
    .addOption(
      new Option('--format <format>', 'how to write it').choices(['text', 'json']).default('text'),
    )
    .addHelpText(
      'after',
      `
  error    something needs doing: totals may go wrong or come late, or jobs may be lost
  warning  it works, but something costs, or may cost, what it need not

It does not compare totals: "gift-budgets verify" does.

Exit codes: 0 no error was found (warnings may have been), 1 at least one was, or it could not look
(the message says why), 130 interrupted.`,
    )
    .action(async ({ format }: { format: Format }) => {
      await withExamined(context, async (examined) => {
        const tally = { errors: 0, warnings: 0 };
        const report = REPORTS[format];
        const told: CheckedFinding[] = [];
        for await (const finding of examine(examined)) {
          if (finding.severity === 'error') tally.errors += 1;
          if (finding.severity === 'warning') tally.warnings += 1;
          told.push(finding);
          for (const line of report.finding(finding)) context.print(line);
          if (context.interrupted.aborted) return context.setExitCode(130);
        }
        context.print(report.end(told, tally));
        if (tally.errors > 0) context.setExitCode(1);
      });
    });
}

/** A database that does not answer must not keep Redis from being looked at. */
async function withExamined(
  context: CommandContext,
  work: (examined: Examined) => Promise<void>,
): Promise<void> {
  const { databaseUrl, redisUrl, pooler } = context.config();
  const migrations = await knownMigrations();
  if (databaseUrl === undefined) {
    return await context.withStores(
      async (stores) => await work({ ...stores, unreachable: null, knownMigrations: migrations }),
    );
  }
  await work({
    databaseUrl,
    pooled: pooler === 'transaction',
    unreachable: await whyUnreachable(databaseUrl),
    queue:
      redisUrl === undefined
        ? { backend: 'postgres', url: databaseUrl }
        : { backend: 'redis', url: redisUrl },
    knownMigrations: migrations,
  });
}

async function whyUnreachable(databaseUrl: string): Promise<string | null> {
  try {
    await reachDatabase(databaseUrl);
    return null;
  } catch (error) {
    if (error instanceof CommandError) return error.message;
    throw error;
  }
}

interface Tally {
  readonly errors: number;
  readonly warnings: number;
}

interface Report {
  finding(finding: CheckedFinding): string[];
  end(told: readonly CheckedFinding[], tally: Tally): string;
}

const [SEVERITY_WIDTH, CHECK_WIDTH] = ['warning  '.length, 'privileges  '.length];
const INDENT = ' '.repeat(SEVERITY_WIDTH + CHECK_WIDTH);

const REPORTS: Record<Format, Report> = {
  text: {
    finding({ severity, check, found, why, todo, sql, shell }) {
      const head = severity.padEnd(SEVERITY_WIDTH) + check.padEnd(CHECK_WIDTH);
      return [
        head + printable(found),
        ...(why === null ? [] : [INDENT + printable(why)]),
        ...(todo === null ? [] : [INDENT + printable(todo)]),
        ...[...sql, ...shell].map((line) => `${INDENT}  ${printable(line)}`),
      ];
    },
    end: (_told, { errors, warnings }) =>
      errors + warnings === 0
        ? 'All is as it should be.'
        : `${count(errors, 'error')}, ${count(warnings, 'warning')}`,
  },
  json: {
    finding: () => [],
    end: (findings, tally) => JSON.stringify({ ...tally, findings }, null, 2),
  },
};
