import { Command, Option } from 'commander';
import type { Queryable } from '../database.ts';
import {
  type FailureFilter,
  type ListedFailure,
  readFailures,
  type RetriedFailure,
  retryFailures,
} from '../recalculation/failures.ts';
import type { PairResult } from '../recalculation/pairs.ts';
import type { CommandContext } from './context.ts';
import { findNamed } from './find-named.ts';
import { type Column, type Format, FORMATS, renderRows } from './table.ts';

interface FailuresOptions {
  readonly person?: string;
  readonly occasion?: string;
  readonly retry?: true;
  readonly format: Format;
}

export function failuresCommand(context: CommandContext): Command {
  return new Command('failures')
    .summary('list the budgets whose total cannot be stored, or try them again')
    .description(
      'Lists the budgets whose sum cannot be stored (it is too large, say) or computed, and why. ' +
        'Their stored total is the last one that could be. A change of their assignments has them ' +
        'tried again by itself; so does --retry.',
    )
    .option('--person <name or id>', 'only those of this person')
    .option('--occasion <name or id>', 'only those for this occasion')
    .option('--retry', 'recalculate them now, and tell what became of each')
    .addOption(
      new Option('--format <format>', 'how to write them').choices(FORMATS).default('table'),
    )
    .addHelpText(
      'after',
      `
What becomes of one that is tried again is one of
  stored   its total is stored now, and it is listed no more
  failed   it still cannot be stored, for the reason given
  marked   somebody holds its row, so a mark leaves it to the worker: "gift-budgets start"
  gone     there is no such budget any more, and it is listed no more

Examples:
  gift-budgets failures
  gift-budgets failures --retry --occasion Christmas

Exit codes: 0 listed, or none failed when tried again; 1 with --retry: some still fail, or not all
could be tried (the message says why), 130 interrupted.`,
    )
    .action(async (options: FailuresOptions) => {
      await context.withDatabase(async ({ pool }) => {
        const filter = await toFilter(pool, options);
        const tally = new Map<string, number>();
        const lines =
          options.retry === true
            ? renderRows(
                options.format,
                RETRIED,
                counted(tally, retryFailures(pool, filter), outcomeOf),
              )
            : renderRows(
                options.format,
                LISTED,
                counted(tally, readFailures(pool, filter), () => 'listed'),
              );
        for await (const text of lines) {
          context.print(text);
          if (context.interrupted.aborted) return context.setExitCode(130);
        }
        if (options.format === 'table') context.print(describeTally(tally));
        if (tally.has('failed')) context.setExitCode(1);
      });
    });
}

async function toFilter(db: Queryable, options: FailuresOptions): Promise<FailureFilter> {
  const { person, occasion } = options;
  return {
    ...(person === undefined ? {} : { personIds: await findNamed(db, 'persons', person) }),
    ...(occasion === undefined ? {} : { occasionIds: await findNamed(db, 'occasions', occasion) }),
  };
}

const PAIR: readonly Column<ListedFailure>[] = [
  { name: 'person', value: ({ person }) => person },
  { name: 'person_id', value: ({ personId }) => personId, align: 'right' },
  { name: 'occasion', value: ({ occasion }) => occasion },
  { name: 'occasion_id', value: ({ occasionId }) => occasionId, align: 'right' },
];

const LISTED: readonly Column<ListedFailure>[] = [
  ...PAIR,
  { name: 'total', value: ({ total }) => total, align: 'right' },
  { name: 'attempts', value: ({ attempts }) => attempts, align: 'right' },
  { name: 'first_failed_at', value: ({ firstFailedAt }) => firstFailedAt.toISOString() },
  { name: 'last_failed_at', value: ({ lastFailedAt }) => lastFailedAt.toISOString() },
  { name: 'reason', value: ({ reason }) => reason },
];

const RETRIED: readonly Column<RetriedFailure>[] = [
  ...PAIR.map(({ value, ...column }) => ({
    ...column,
    value: ({ failure }: RetriedFailure) => value(failure),
  })),
  { name: 'outcome', value: outcomeOf },
  { name: 'stored', value: ({ result }) => storedBy(result), align: 'right' },
  { name: 'reason', value: ({ result }) => (result.outcome === 'failed' ? result.reason : null) },
];

const OUTCOMES = {
  changed: 'stored',
  // What is stored was right already, and now it is listed no more.
  unchanged: 'stored',
  failed: 'failed',
  busy: 'marked',
  missing: 'gone',
} as const;

function outcomeOf({ result }: RetriedFailure): string {
  return OUTCOMES[result.outcome];
}

function storedBy(result: PairResult): string | null {
  return result.outcome === 'changed' || result.outcome === 'unchanged' ? result.after : null;
}

async function* counted<Row>(
  tally: Map<string, number>,
  chunks: AsyncIterable<Row[]>,
  kindOf: (row: Row) => string,
): AsyncGenerator<Row[], void, undefined> {
  for await (const chunk of chunks) {
    for (const row of chunk) tally.set(kindOf(row), (tally.get(kindOf(row)) ?? 0) + 1);
    yield chunk;
  }
}

function describeTally(tally: ReadonlyMap<string, number>): string {
  if (tally.size === 0) return 'No failures.';
  const listed = tally.get('listed');
  if (listed !== undefined) return `\n${listed} ${listed === 1 ? 'failure' : 'failures'}`;
  return `\n${[...tally].map(([outcome, number]) => `${number} ${outcome}`).join(', ')}`;
}
