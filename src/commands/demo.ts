import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import type pg from 'pg';
import { startApp } from '../app.ts';
import { type NamedBudget, readNamedBudgets } from '../budgets/named-budgets.ts';
import type { Queryable } from '../database.ts';
import { budgetBars } from '../demo/budget-bars.ts';
import { LiveCounts, readBacklog, startLiveView } from '../demo/live-view.ts';
import type { UpstreamTask } from '../demo/upstream.ts';
import { importGiftList } from '../import/import.ts';
import { openGiftEventsQueue } from '../queue.ts';
import type { Stores } from '../stores.ts';
import { CommandError, type CommandContext } from './context.ts';

const FAMILY = fileURLToPath(new URL('../demo/family.csv', import.meta.url));
const UPSTREAM = fileURLToPath(
  new URL(`../demo/upstream${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url),
);
const QUIET_TIMEOUT_MS = 30_000;

export function demoCommand(context: CommandContext): Command {
  return new Command('demo')
    .summary('see it work, on servers of its own that are gone afterwards')
    .description(
      'Boots an embedded PostgreSQL, imports the gift list of a family, and lets a separate ' +
        'upstream process change gifts for some seconds while the totals follow.',
    )
    .option('--seconds <number>', 'how long the upstream process changes gifts', wholeSeconds, 6)
    .addHelpText('after', '\nExit codes: 0 every total is right, 1 one is not, 130 interrupted.')
    .action(async ({ seconds }: { seconds: number }) => {
      context.print('Booting an embedded PostgreSQL for the budgets and the queue …');
      const options = { privateServer: true, applicationName: 'gift-budgets demo' };
      let hasBooted = false;
      const running = context.withStores(async (stores) => {
        hasBooted = true;
        await runDemo(context, stores, seconds);
      }, options);
      try {
        await Promise.race([running, interruption(context.interrupted, () => !hasBooted)]);
      } catch (error) {
        if (!context.interrupted.aborted) throw error;
        context.setExitCode(130);
      }
    });
}

/** A server that is still booting need not be waited for: its keeper cleans up when we are gone. */
function interruption(signal: AbortSignal, matters: () => boolean): Promise<never> {
  return new Promise((_, reject) => {
    const interrupt = (): void => {
      if (matters()) reject(signal.reason as Error);
    };
    if (signal.aborted) interrupt();
    else signal.addEventListener('abort', interrupt);
  });
}

async function runDemo(context: CommandContext, stores: Stores, seconds: number): Promise<void> {
  const { pool } = stores.database;
  const signal = context.interrupted;
  if (signal.aborted) return context.setExitCode(130);
  const { imported, pairs } = await importGiftList(pool, createReadStream(FAMILY));
  context.print(
    `Imported ${imported.assignments} gifts for ${imported.persons} people, ${pairs.length} budgets.`,
  );

  const counts = new LiveCounts();
  const app = await startApp(context.config(), stores, context.log(), {
    pages: false,
    observer: counts,
  });
  try {
    context.print(
      `An upstream process assigns, reprices, moves and unassigns gifts for ${seconds} s;`,
    );
    context.print('of every fourth change it sends no event, and the mark alone tells.\n');
    if (signal.aborted) return context.setExitCode(130);
    const changes = await watchUpstream(stores, counts, seconds, signal);
    await untilQuiet(stores, signal);
    if (signal.aborted) return context.setExitCode(130);
    context.print(`\nThe upstream made ${changes} changes. The budgets now:\n`);
  } finally {
    await app.stop();
  }
  const colour = process.stdout.isTTY && process.stdout.hasColors();
  context.print(`${budgetBars(await allBudgets(pool), colour)}\n`);
  await check(context, pool);
}

/** @returns how many changes the upstream made, by its own count. */
async function watchUpstream(
  stores: Stores,
  counts: LiveCounts,
  seconds: number,
  signal: AbortSignal,
): Promise<string> {
  const { databaseUrl, queue } = stores;
  const task: UpstreamTask = { databaseUrl, queue, seconds };
  const view = startLiveView(stores.database.pool, counts, process.stdout);
  const upstream = spawn(process.execPath, [UPSTREAM, JSON.stringify(task)], {
    // The end of its standard input tells it of our end, so that it outlives us in no case.
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const interrupt = (): void => void upstream.kill('SIGKILL');
  signal.addEventListener('abort', interrupt);
  try {
    return await finished(upstream, signal);
  } finally {
    signal.removeEventListener('abort', interrupt);
    await view.stop();
  }
}

async function finished(upstream: ChildProcess, signal: AbortSignal): Promise<string> {
  let said = '';
  upstream.stdout!.setEncoding('utf8').on('data', (text: string) => (said += text));
  const [code] = (await once(upstream, 'close')) as [number | null];
  if (code !== 0 && !signal.aborted) {
    throw new CommandError(`the upstream process failed with exit code ${code}`);
  }
  return said.trim();
}

async function untilQuiet(stores: Stores, signal: AbortSignal): Promise<void> {
  const open = openGiftEventsQueue(stores.queue, () => {});
  try {
    const deadline = performance.now() + QUIET_TIMEOUT_MS;
    while (!signal.aborted) {
      const { marks } = await readBacklog(stores.database.pool);
      const jobs = await open.queue.getJobCountByTypes(
        'waiting',
        'active',
        'delayed',
        'prioritized',
      );
      if (marks === 0 && jobs === 0) return;
      if (performance.now() > deadline) {
        throw new CommandError(`${marks} marks and ${jobs} jobs are still pending`);
      }
      await sleep(50);
    }
  } finally {
    await open.close();
  }
}

async function allBudgets(db: pg.Pool): Promise<NamedBudget[]> {
  const budgets: NamedBudget[] = [];
  for await (const page of readNamedBudgets(db, {})) budgets.push(...page);
  return budgets;
}

/** Asks the tables themselves, past all code of the recalculation. */
async function check(context: CommandContext, db: Queryable): Promise<void> {
  const { rows } = await db.query(
    `select count(*)::int as checked,
            (count(*) filter (where b.budget_spent <> coalesce(g.total, 0)))::int as wrong
       from person_occasions b
       left join (select person_id, occasion_id, sum(amount) as total
                    from gift_persons group by person_id, occasion_id) g using (person_id, occasion_id)`,
  );
  const { checked, wrong } = rows[0] as { checked: number; wrong: number };
  context.print(`${checked} budgets checked, ${wrong} wrong`);
  if (wrong > 0) context.setExitCode(1);
}

function wholeSeconds(text: string): number {
  if (!/^[1-9][0-9]{0,3}$/.test(text)) {
    throw new InvalidArgumentError('expected whole seconds from 1 to 9999');
  }
  return Number(text);
}
