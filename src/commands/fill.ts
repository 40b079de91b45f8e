import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import type pg from 'pg';
import { budgetsLeft, fill } from '../recalculation/fill.ts';
import type { PairResult } from '../recalculation/pairs.ts';
import { markEverything } from '../recalculation/write-marks.ts';
import type { CommandContext } from './context.ts';

const CHUNK_PAIRS_MAX = 500;

export function fillCommand(context: CommandContext): Command {
  return new Command('fill')
    .summary('store the totals of a database that had assignments before')
    .description(
      'Recalculates every budget that was there when the database was migrated, without any event. ' +
        'A running worker does the same by itself; this does it at once, and tells how far it is. It ' +
        'holds up no writer, and may be run beside workers. Interrupted or killed, it goes on where it ' +
        'was when it is run again, and so does a worker.',
    )
    .option('--again', 'recalculate every budget, also where there is nothing left to fill')
    .addHelpText(
      'after',
      `
Of a total that somebody holds, or whose sum cannot be stored, the worker ("gift-budgets start") or
"gift-budgets failures" has more to tell; the rest does not wait for it.

Exit codes: 0 filled, 1 not done, or some totals cannot be stored, 130 interrupted.`,
    )
    .action(async ({ again }: { again?: true }) => {
      await context.withDatabase(async ({ pool }) => {
        if (again === true) await markEverything(pool);
        const tally = await fillAndTell(context, pool);
        if (tally === null)
          return context.print('Nothing to fill: no total waits for its first sum.');
        if (context.interrupted.aborted) {
          context.warn(`interrupted: ${describeTally(tally)}; run it again to go on from here`);
          return context.setExitCode(130);
        }
        context.print(describeTally(tally));
        if (tally.failed > 0) context.setExitCode(1);
      });
    });
}

type Tally = Record<PairResult['outcome'], number>;

/** @returns null where there was nothing to do. */
async function fillAndTell(context: CommandContext, pool: pg.Pool): Promise<Tally | null> {
  const total = await budgetsLeft(pool);
  if (total === null) return null;
  const tally: Tally = { changed: 0, unchanged: 0, busy: 0, failed: 0, missing: 0 };
  const bar = new SingleBar({
    format: 'filling {bar} {percentage} % | {value} of {total} budgets | {eta_formatted} left',
    stream: process.stderr,
    clearOnComplete: true,
  });
  if (process.stderr.isTTY) bar.start(total, 0);
  const timing = { pollMinMs: 0, pollMaxMs: 0, graceMs: () => 0 };
  const options = { pool, pairsMax: CHUNK_PAIRS_MAX, ...timing };
  try {
    for await (const { left, results } of fill(options, context.interrupted)) {
      bar.update(Math.max(0, total - left));
      for (const { outcome } of results) tally[outcome] += 1;
    }
    return tally;
  } finally {
    bar.stop();
  }
}

function describeTally({ changed, unchanged, busy, failed }: Tally): string {
  const done = changed + unchanged + failed + busy;
  return [
    `${done} ${done === 1 ? 'budget' : 'budgets'} recalculated here, ${changed} changed`,
    ...(busy > 0 ? [`${busy} left to the worker`] : []),
    ...(failed > 0 ? [`${failed} cannot be stored`] : []),
  ].join(', ');
}
