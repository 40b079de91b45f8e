import { Command, Option } from 'commander';
import { BudgetReader } from '../budgets/reader.ts';
import type { Lag } from '../budgets/lag.ts';
import { type QueueCounts, readQueueCounts } from '../operations/queue-counts.ts';
import { countFailures, type ListedFailure, readFailures } from '../recalculation/failures.ts';
import { lastSweeps, type Sweep } from '../recalculation/sweep-record.ts';
import type { Stores } from '../stores.ts';
import type { CommandContext } from './context.ts';
import { mustHaveQueueTables } from './queue-tables.ts';
import { printable } from './table.ts';

interface Status {
  readonly lag: Lag;
  readonly failures: number;
  readonly firstFailures: readonly ListedFailure[];
  readonly queue: QueueCounts;
  readonly sweeps: readonly Sweep[];
}

const FAILURES_TOLD_MAX = 5;
const SWEEPS_TOLD_MAX = 5;

export function statusCommand(context: CommandContext): Command {
  return new Command('status')
    .summary('how fresh the totals are, and what stands in the way')
    .description(
      'Tells how far the stored totals are behind, which of them cannot be stored, how many jobs ' +
        'the queue has in each state, and what the last sweeps found. It changes nothing.',
    )
    .addOption(
      new Option('--format <format>', 'how to write it').choices(['text', 'json']).default('text'),
    )
    .addHelpText(
      'after',
      `
  lag       the age of the oldest change that is not in its total yet, and how many pairs (of a
            person and an occasion) have such a change; past 10,000 it does not count on
  failures  budgets whose sum cannot be stored: "gift-budgets failures" tells all of them
  queue     the gift events; where it cannot be reached, totals still become right, by their marks
  sweeps    comparisons of all stored totals with their sums, the newest first

Exit codes: 0 told, whatever there is to tell; 1 the database cannot be asked (the message says why).`,
    )
    .action(async ({ format }: { format: 'text' | 'json' }) => {
      await context.withStores(async (stores) => {
        const status = await readStatus(stores);
        if (format === 'json') context.print(JSON.stringify(status, null, 2));
        else for (const line of describe(status)) context.print(line);
      });
    });
}

async function readStatus(stores: Stores): Promise<Status> {
  const { pool } = stores.database;
  const [lag, failures, first, queue, sweeps] = await Promise.all([
    new BudgetReader(pool).lag(),
    countFailures(pool),
    readFailures(pool, {}, FAILURES_TOLD_MAX).next(),
    readQueueCounts(stores.queue, () => mustHaveQueueTables(stores)),
    lastSweeps(pool, SWEEPS_TOLD_MAX),
  ]);
  return { lag, failures, firstFailures: first.value ?? [], queue, sweeps };
}

/** A lag beyond this is no longer the moment that a recalculation takes. */
const LAG_HINT_SECONDS = 5;

function describe({ lag, failures, firstFailures, queue, sweeps }: Status): string[] {
  return [
    `lag       ${describeLag(lag)}`,
    ...(lag.seconds > LAG_HINT_SECONDS
      ? ['          if this grows, is a worker running? "gift-budgets start" runs one']
      : []),
    ...underHeading('failures', failures === 0 ? [] : [String(failures)]),
    ...firstFailures.map((failure) => `          ${describeFailure(failure)}`),
    ...(failures > firstFailures.length
      ? [`          … and ${failures - firstFailures.length} more: "gift-budgets failures"`]
      : []),
    `queue     ${describeQueue(queue)}`,
    ...underHeading('sweeps', sweeps.map(describeSweep)),
  ];
}

function underHeading(heading: string, [first = 'none', ...others]: readonly string[]): string[] {
  return [`${heading.padEnd(10)}${first}`, ...others.map((line) => `          ${line}`)];
}

function describeLag({ seconds, pendingPairs, isAtLeast }: Lag): string {
  if (pendingPairs === 0 && seconds === 0) return '0 s, nothing is pending';
  const pairs = `${pendingPairs} ${pendingPairs === 1 ? 'pair' : 'pairs'} pending`;
  return `${seconds.toFixed(1)} s, ${isAtLeast ? 'at least ' : ''}${pairs}`;
}

function describeFailure(failure: ListedFailure): string {
  const { person, personId, occasion, occasionId, reason } = failure;
  return printable(
    `${person ?? 'gone'} (person ${personId}), ${occasion ?? 'gone'} (occasion ${occasionId}): ${reason}`,
  );
}

function describeQueue(queue: QueueCounts): string {
  const where = queue.backend === 'redis' ? 'in Redis' : 'in PostgreSQL';
  if ('unreachable' in queue) return printable(`${where}, not reachable (${queue.unreachable})`);
  const jobs = Object.entries(queue.jobs)
    .filter(([, number]) => number > 0)
    .map(([state, number]) => `${number} ${state}`);
  return `${where}: ${jobs.join(', ') || 'no jobs'}`;
}

function describeSweep({ mode, startedAt, finishedAt, checked, drifted, repaired }: Sweep): string {
  const when = `${startedAt.toISOString()}, ${finishedAt === null ? 'unfinished' : 'finished'}`;
  const found = `${checked} checked, ${drifted} drifted`;
  return `${when}: ${found}${mode === 'repair' ? `, ${repaired} repaired` : ' (report only)'}`;
}
