import { Command, Option } from 'commander';
import type pg from 'pg';
import type { Id, Pair } from '../events/contract.ts';
import { count, diagnose, stateOf } from '../operations/diagnosis.ts';
import { findRowHolders, type RowHold } from '../operations/row-holders.ts';
import {
  type ExplainedAssignment,
  type ExplainedBudget,
  explainBudget,
} from '../recalculation/explain-budget.ts';
import { CommandError, type CommandContext } from './context.ts';
import { findNamed } from './find-named.ts';
import { type Column, printable, renderRows } from './table.ts';

interface ExplainOptions {
  readonly person: string;
  readonly occasion: string;
  readonly format: 'text' | 'json';
}

export function explainCommand(context: CommandContext): Command {
  return new Command('explain')
    .summary('say why a stored total is what it is')
    .description(
      'Tells of one budget what is stored and what is right, the assignments that make it, whether ' +
        'a change is pending, whether its sum cannot be stored, who holds its row, and what to do. ' +
        'It changes nothing, and waits for nobody.',
    )
    .requiredOption('--person <name or id>', 'whose budget')
    .requiredOption('--occasion <name or id>', 'for which occasion')
    .addOption(
      new Option('--format <format>', 'how to write it').choices(['text', 'json']).default('text'),
    )
    .addHelpText(
      'after',
      `
The last lines say which of these it is, and what to do:
  right    the stored total is the sum, and nothing is pending
  pending  it was changed a moment ago, and is about to be recalculated
  failed   its sum cannot be stored or computed
  wrong    drift: stored is not the sum, and nothing will put it right by itself
Stored, right and pending are of one moment; who holds the row is asked right after it.

Example: gift-budgets explain --person "Ada Lovelace" --occasion Christmas

Exit codes: 0 right or pending, 1 failed or wrong, or there is no such budget (the message says so).`,
    )
    .action(async ({ person, occasion, format }: ExplainOptions) => {
      await context.withDatabase(async ({ pool }) => {
        const budget = await explainBudget(pool, await findBudget(pool, person, occasion));
        if (budget === null) throw new CommandError('the budget was deleted just now');
        const hold = await findRowHolders(pool, budget);
        for await (const line of WRITERS[format](budget, hold)) context.print(line);
        const state = stateOf(budget);
        if (state === 'wrong' || state === 'failed') context.setExitCode(1);
      });
    });
}

const PAIRS_TOLD_MAX = 5;

/** @throws {CommandError} where no budget fits, or more than one. */
async function findBudget(pool: pg.Pool, person: string, occasion: string): Promise<Pair> {
  const { rows } = await pool.query<Pair>(
    `select person_id::text as "personId", occasion_id::text as "occasionId"
       from person_occasions
      where person_id = any ($1::bigint[]) and occasion_id = any ($2::bigint[])
      order by person_id, occasion_id
      limit $3::int`,
    [
      preferId(await findNamed(pool, 'persons', person), person),
      preferId(await findNamed(pool, 'occasions', occasion), occasion),
      PAIRS_TOLD_MAX,
    ],
  );
  const [pair, ...others] = rows;
  if (pair === undefined) {
    throw new CommandError(`person "${person}" has no budget for occasion "${occasion}"`);
  }
  if (others.length === 0) return pair;
  const pairs = rows.map((row) => `person ${row.personId}, occasion ${row.occasionId}`);
  throw new CommandError(
    `more than one budget fits (${pairs.join('; ')}): give the ids instead of the names`,
  );
}

/** Where one has the id and another has it as a name, the id is what is meant. */
function preferId(ids: readonly Id[], given: string): readonly Id[] {
  return ids.includes(given) ? [given] : ids;
}

const WRITERS = { text: writeText, json: writeJson };

async function* writeJson(budget: ExplainedBudget, hold: RowHold): AsyncGenerator<string> {
  const sentences = diagnose(budget, hold);
  yield JSON.stringify({ state: stateOf(budget), ...budget, row: hold, sentences }, null, 2);
}

async function* writeText(budget: ExplainedBudget, hold: RowHold): AsyncGenerator<string> {
  const { person, personId, occasion, occasionId } = budget;
  yield printable(`${person} (person ${personId}), ${occasion} (occasion ${occasionId})`);
  yield '';
  yield `stored       ${budget.stored}`;
  yield `right        ${budget.right ?? `unknown: ${printable(budget.rightError!)}`}`;
  yield `assignments  ${describeAssignments(budget)}`;
  yield `pending      ${describePending(budget)}`;
  yield `failure      ${describeFailure(budget)}`;
  yield `row          ${describeHold(hold)}`;
  if (budget.firstAssignments.length > 0) {
    yield '';
    yield* renderRows('table', COLUMNS, only(budget.firstAssignments));
    const more = budget.assignments - budget.firstAssignments.length;
    if (more > 0) yield `… and ${more} more`;
  }
  yield '';
  for (const sentence of diagnose(budget, hold)) yield printable(sentence);
}

const COLUMNS: readonly Column<ExplainedAssignment>[] = [
  { name: 'assignment', value: ({ id }) => id, align: 'right' },
  { name: 'gift', value: ({ gift }) => gift },
  { name: 'amount', value: ({ amount }) => amount, align: 'right' },
];

async function* only<T>(chunk: T): AsyncGenerator<T> {
  yield chunk;
}

function describeAssignments(budget: ExplainedBudget): string {
  const unknown = budget.assignments - budget.assignmentsWithAmount;
  const without = unknown > 0 ? `, ${unknown} of them without an amount` : '';
  return `${budget.assignments}${without}, ${budget.assignmentsSum} in all`;
}

function describePending(budget: ExplainedBudget): string {
  const { marks, oldestMarkSeconds, everythingMarkSeconds } = budget;
  const said = [
    ...(marks > 0
      ? [`${count(marks, 'mark')}, the oldest ${oldestMarkSeconds!.toFixed(1)} s old`]
      : []),
    ...(everythingMarkSeconds === null
      ? []
      : [`a mark for everything, ${everythingMarkSeconds.toFixed(1)} s old`]),
  ];
  return said.join('; ') || 'nothing';
}

function describeFailure({ failure }: ExplainedBudget): string {
  if (failure === null) return 'none';
  const { reason, attempts, secondsSinceFirst } = failure;
  const tries = count(attempts, 'attempt');
  return printable(`${reason} (${tries}, first ${secondsSinceFirst.toFixed(0)} s ago)`);
}

function describeHold({ state, holders, why }: RowHold): string {
  if (state === 'free') return 'free';
  if (state === 'unknown') return `cannot be tried: ${why}`;
  const said = holders.map((holder) =>
    holder.kind === 'prepared'
      ? `prepared transaction '${holder.gid}'`
      : `pid ${holder.pid} (${holder.query ?? 'its query cannot be seen'})`,
  );
  return printable(`held by ${said.join(' and ') || 'somebody'}`);
}
