import { Command, Option } from 'commander';
import { compareTotals, type Difference } from '../recalculation/compare.ts';
import type { CommandContext } from './context.ts';

interface Tally {
  checked: number;
  wrong: number;
  pending: number;
  failed: number;
}

/** How the findings are written, a line each. */
interface Report {
  readonly begin: string[];
  difference(difference: Difference, isFirst: boolean): string;
  end(tally: Tally): string;
}

export interface VerifyOptions {
  /** The least time between two lines of progress, in milliseconds. */
  readonly progressEveryMs?: number;
}

export function verifyCommand(
  context: CommandContext,
  { progressEveryMs = 1_000 }: VerifyOptions = {},
): Command {
  return new Command('verify')
    .summary('compare every stored total with the sum of its assignments')
    .description(
      'Sums the assignments of every budget anew, compares each sum with the stored total, ' +
        'and lists those that differ. It changes nothing, and may run at any time: it holds no locks.',
    )
    .addOption(
      new Option('--format <format>', 'how to write the findings')
        .choices(['text', 'json'])
        .default('text'),
    )
    .addHelpText(
      'after',
      `
A total that differs is one of
  wrong    nothing will put it right by itself: assignments were changed behind the triggers,
           by a restore for instance; "gift-budgets repair" puts it right
  pending  it was changed a moment ago and is about to be recalculated: run "gift-budgets start"
           if no worker is running
  failed   its sum cannot be stored, for the reason given; a change of its assignments mends it

Exit codes: 0 none is wrong (pending and failed ones are only told), 1 at least one is wrong, or
not all could be compared (the message says why), 130 interrupted.`,
    )
    .action(async ({ format }: { format: 'text' | 'json' }) => {
      const report = REPORTS[format];
      await context.withDatabase(async ({ pool }) => {
        const { rows } = await pool.query<{ count: number }>(
          'select count(*)::float8 as count from person_occasions',
        );
        const tellProgress = progressTeller(context, rows[0]!.count, progressEveryMs);
        const tally: Tally = { checked: 0, wrong: 0, pending: 0, failed: 0 };
        for (const line of report.begin) context.print(line);
        let isFirst = true;
        for await (const { checked, differences } of compareTotals(pool)) {
          tally.checked += checked;
          for (const difference of differences) {
            tally[difference.state] += 1;
            context.print(report.difference(difference, isFirst));
            isFirst = false;
          }
          tellProgress(tally);
          if (context.interrupted.aborted) {
            context.warn(`interrupted: ${describeTally(tally)}`);
            return context.setExitCode(130);
          }
        }
        context.print(report.end(tally));
        if (tally.wrong > 0) context.setExitCode(1);
      });
    });
}

/** A line at most every so often: a short check shows none, a log of a long one stays short. */
function progressTeller(context: CommandContext, budgets: number, everyMs: number) {
  let toldAt = performance.now();
  return ({ checked, wrong }: Tally): void => {
    if (performance.now() - toldAt < everyMs) return;
    toldAt = performance.now();
    context.warn(`checked ${checked} of ${budgets} budgets, ${wrong} wrong so far`);
  };
}

const REPORTS: Record<'text' | 'json', Report> = {
  text: {
    begin: [],
    difference({ personId, occasionId, stored, right, state, reason }) {
      const totals = `stored ${stored}, right ${right ?? 'unknown'}`;
      const why = reason === null ? '' : ` (${reason})`;
      return `${state.padEnd(7)}  person ${personId}, occasion ${occasionId}: ${totals}${why}`;
    },
    end: describeTally,
  },
  /** One object; the counts come last, so that nothing has to be kept. */
  json: {
    begin: ['{"differences":['],
    difference: (difference, isFirst) => `${isFirst ? '' : ','}${JSON.stringify(difference)}`,
    end: (tally) => `],${JSON.stringify(tally).slice(1)}`,
  },
};

function describeTally({ checked, wrong, pending, failed }: Tally): string {
  return [
    `${checked} ${checked === 1 ? 'budget' : 'budgets'} checked, ${wrong} wrong`,
    ...(pending > 0 ? [`${pending} pending`] : []),
    ...(failed > 0 ? [`${failed} failed`] : []),
  ].join(', ');
}
