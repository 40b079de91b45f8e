import { SingleBar } from 'cli-progress';
import { Command, Option } from 'commander';
import type pg from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import { sweepChunk } from '../recalculation/sweep.ts';
import {
  beginSweep,
  findingsOf,
  findSweep,
  type KeptFinding,
  type Sweep,
  unfinishedSweep,
} from '../recalculation/sweep-record.ts';
import type { CommandContext } from './context.ts';

type Format = 'text' | 'json';

/** While another process is at the sweep, how often its progress is looked at. */
const WATCH_MS = 200;

export function repairCommand(context: CommandContext): Command {
  return new Command('repair')
    .summary('find stored totals that drifted from their sums, and repair them')
    .description(
      'Compares every stored total with the sum of its assignments and repairs those that drifted, ' +
        'telling what was stored and what is right. Totals whose change is pending, or whose sum ' +
        'cannot be stored, are no drift. It holds up no writer, and may be run at any time; ' +
        'interrupted or killed, it goes on where it was when it is run again.',
    )
    .addOption(
      new Option('--format <format>', 'how to write the findings; json: an object to a line')
        .choices(['text', 'json'])
        .default('text'),
    )
    .addHelpText(
      'after',
      `
What becomes of a total that drifted is one of
  repaired  its right total is stored now
  marked    somebody holds its row, so a mark leaves it to the worker: "gift-budgets start"
  failed    its sum cannot be stored, for the reason given
  gone      by the time of the repair it was deleted, or right already
Of more than a thousand the first thousand are told, and all are counted.

Exit codes: 0 all that drifted is repaired or left to the worker, 1 some of it cannot be stored,
or not all could be compared (the message says why), 130 interrupted.`,
    )
    .action(async ({ format }: { format: Format }) => {
      await context.withDatabase(async ({ pool }) => {
        const sweep = await sweepToTheEnd(context, pool, format);
        if (sweep === null) {
          context.warn('interrupted: run it again to go on from here');
          return context.setExitCode(130);
        }
        context.print(REPORTS[format].end(sweep));
        if (sweep.failed > 0) context.setExitCode(1);
      });
    });
}

/** @returns the repairing sweep, finished; null where it was interrupted. */
async function sweepToTheEnd(
  context: CommandContext,
  pool: pg.Pool,
  format: Format,
): Promise<Sweep | null> {
  for (;;) {
    await beginSweep(pool, 'repair', 0);
    const sweep = await unfinishedSweep(pool);
    if (sweep === null) continue; // another process has just finished it
    if (sweep.checked > 0) {
      const since = `begun at ${sweep.startedAt.toISOString()}, ${sweep.checked} budgets checked`;
      context.warn(`going on with the ${sweep.mode} sweep ${since}`);
    }
    const finished = await follow(context, pool, sweep, format);
    if (finished === null || finished.mode === 'repair') return finished;
    // A sweep that only reports was under way; now it is our turn.
  }
}

/** Sweeps, or watches who does, and tells each finding as it is made. */
async function follow(
  context: CommandContext,
  pool: pg.Pool,
  { id, mode }: Sweep,
  format: Format,
): Promise<Sweep | null> {
  const bar = await startBar(pool);
  let tellAfter: string | undefined;
  const tell = async (): Promise<void> => {
    if (mode !== 'repair') return;
    for (const finding of await findingsOf(pool, id, tellAfter)) {
      tellAfter = finding.id;
      context.print(REPORTS[format].finding(finding));
    }
  };
  try {
    while (!context.interrupted.aborted) {
      const chunk = await sweepChunk(pool, id, CHUNK_PAIRS_MAX);
      const sweep = chunk?.sweep ?? (await findSweep(pool, id));
      bar.update(sweep?.checked ?? 0);
      if (chunk === null || chunk.findings.length > 0) await tell();
      if (sweep === null || sweep.finishedAt !== null) {
        await tell();
        return sweep;
      }
      if (chunk === null) await sleep(WATCH_MS);
    }
    return null;
  } finally {
    bar.stop();
  }
}

const CHUNK_PAIRS_MAX = 500;

/** On standard error, and only where somebody looks. */
async function startBar(pool: pg.Pool): Promise<SingleBar> {
  const { rows } = await pool.query<{ count: number }>(
    'select count(*)::float8 as count from person_occasions',
  );
  const bar = new SingleBar({
    format: 'sweeping {bar} {percentage} % | {value} of {total} budgets | {eta_formatted} left',
    stream: process.stderr,
    clearOnComplete: true,
  });
  if (process.stderr.isTTY) bar.start(rows[0]!.count, 0);
  return bar;
}

const REPORTS = {
  text: {
    finding: ({ personId, occasionId, stored, right, outcome, reason }: KeptFinding): string =>
      `${outcome.padEnd(8)}  person ${personId}, occasion ${occasionId}: ` +
      `stored ${stored}, right ${right ?? 'unknown'}${reason === null ? '' : ` (${reason})`}`,
    end: ({ checked, drifted, repaired }: Sweep): string =>
      `${checked} ${checked === 1 ? 'budget' : 'budgets'} checked, ${drifted} drifted, ` +
      `${repaired} repaired`,
  },
  json: {
    finding: (finding: KeptFinding): string => JSON.stringify(finding),
    end: (sweep: Sweep): string => JSON.stringify(sweep),
  },
};
