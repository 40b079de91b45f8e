import { Command, InvalidArgumentError, Option } from 'commander';
import {
  type NamedBudget,
  type NamedBudgetFilter,
  readNamedBudgets,
} from '../budgets/named-budgets.ts';
import type { Database, Queryable } from '../database.ts';
import type { CommandContext } from './context.ts';
import { findNamed } from './find-named.ts';
import { type Column, type Format, FORMATS, renderRows } from './table.ts';

interface ShowOptions {
  readonly person?: string;
  readonly occasion?: string;
  readonly all?: true;
  readonly over?: true;
  readonly format: Format;
  readonly columns: readonly Column<NamedBudget>[];
}

const COLUMNS: readonly Column<NamedBudget>[] = [
  { name: 'person', value: (budget) => budget.person },
  { name: 'occasion', value: (budget) => budget.occasion },
  { name: 'budget', value: (budget) => budget.amount, align: 'right' },
  { name: 'spent', value: (budget) => budget.spent, align: 'right' },
  { name: 'remaining', value: (budget) => budget.remaining, align: 'right' },
  { name: 'percent_used', value: (budget) => budget.percentUsed, align: 'right' },
  { name: 'over', value: (budget) => budget.isOver },
  { name: 'currency', value: (budget) => budget.currency },
  { name: 'notes', value: (budget) => budget.notes },
];

const COLUMNS_ON_REQUEST: readonly Column<NamedBudget>[] = [
  { name: 'total', value: (budget) => budget.spent, align: 'right' },
  { name: 'person_id', value: (budget) => budget.personId, align: 'right' },
  { name: 'occasion_id', value: (budget) => budget.occasionId, align: 'right' },
];

const COLUMNS_BY_NAME = new Map([...COLUMNS, ...COLUMNS_ON_REQUEST].map((c) => [c.name, c]));

export function showCommand(context: CommandContext): Command {
  return new Command('show')
    .summary('show budgets: planned, spent, what remains')
    .description(
      'Shows budgets with their stored totals, sorted by person and occasion: those of a person, ' +
        'those for an occasion, or all of them.',
    )
    .option('--person <name or id>', 'only the budgets of this person')
    .option('--occasion <name or id>', 'only the budgets for this occasion')
    .addOption(
      new Option('--all', 'every budget; the same as giving neither of these two').conflicts([
        'person',
        'occasion',
      ]),
    )
    .option('--over', 'only those of which more was spent than planned')
    .addOption(
      new Option('--format <format>', 'how to write them').choices(FORMATS).default('table'),
    )
    .addOption(
      new Option('--columns <names>', 'which columns, in which order, with commas between them')
        .argParser(parseColumns)
        .default(COLUMNS, COLUMNS.map((column) => column.name).join(',')),
    )
    .addHelpText(
      'after',
      `
More columns: ${COLUMNS_ON_REQUEST.map((column) => column.name).join(', ')} (total is another name for spent).
Amounts are in the currency of their budget. A budget of which no amount is set has no
remaining and no percent_used: a dash in the table, an empty field in CSV, null in JSON.

Examples:
  gift-budgets show --person "Ada Lovelace"
  gift-budgets show --occasion Christmas --over
  gift-budgets show --all --format csv --columns person,occasion,total > totals.csv

Exit codes: 0 shown (no budget at all is no error), 1 not shown (the message says why),
130 interrupted.`,
    )
    .action(async (options: ShowOptions) => {
      const showing = async ({ pool }: Database): Promise<void> => {
        const filter = await toFilter(pool, options);
        const tally = { budgets: 0, over: 0 };
        const chunks = countBudgets(tally, readNamedBudgets(pool, filter));
        for await (const text of renderRows(options.format, options.columns, chunks)) {
          context.print(text);
          if (context.interrupted.aborted) return context.setExitCode(130);
        }
        if (options.format === 'table') context.print(describeTally(tally));
      };
      await context.withDatabase(showing, { sessionFor: 'the cursor that "show" reads by' });
    });
}

function parseColumns(names: string): readonly Column<NamedBudget>[] {
  return names.split(',').map((name) => {
    const column = COLUMNS_BY_NAME.get(name.trim());
    if (column) return column;
    const known = [...COLUMNS_BY_NAME.keys()].join(', ');
    throw new InvalidArgumentError(`There is no column "${name}"; there are ${known}.`);
  });
}

async function toFilter(db: Queryable, options: ShowOptions): Promise<NamedBudgetFilter> {
  const { person, occasion, over } = options;
  return {
    ...(person === undefined ? {} : { personIds: await findNamed(db, 'persons', person) }),
    ...(occasion === undefined ? {} : { occasionIds: await findNamed(db, 'occasions', occasion) }),
    ...(over ? { onlyOver: true } : {}),
  };
}

async function* countBudgets(
  tally: { budgets: number; over: number },
  chunks: AsyncIterable<NamedBudget[]>,
): AsyncGenerator<NamedBudget[], void, undefined> {
  for await (const chunk of chunks) {
    tally.budgets += chunk.length;
    tally.over += chunk.filter((budget) => budget.isOver).length;
    yield chunk;
  }
}

function describeTally({ budgets, over }: { budgets: number; over: number }): string {
  if (budgets === 0) return 'No budgets.';
  return `\n${budgets} ${budgets === 1 ? 'budget' : 'budgets'}, ${over} over`;
}
