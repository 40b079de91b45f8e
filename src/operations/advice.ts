import { count } from './diagnosis.ts';
import type { Overview } from './overview.ts';
import { QUEUE_BOARD_PATH } from './queue-board.ts';
import { describeMisfit } from './schema-watch.ts';
import { LONG_LAG_SECONDS } from './vitals.ts';

/** Something that somebody should know of, and what to do about it. */
export interface Advice {
  /** `bad`: totals are not kept right, or late; `warn`: they are, but something waits for people. */
  readonly level: 'bad' | 'warn';
  readonly what: string;
  /** What it means, and what it does not. */
  readonly why: string;
  /** What to type. */
  readonly command?: string;
  /** Where to look. */
  readonly page?: string;
}

/** Jobs that wait for longer than this are served by nobody. */
const IDLE_MAX_MS = 30_000;

const FAILED_JOBS_PAGE = `${QUEUE_BOARD_PATH}/queue/gift-events?status=failed`;

/** All that is not as it should be, the worst first. */
export function advise(overview: Overview): Advice[] {
  return [
    ...adviseOnDatabase(overview),
    ...adviseOnSchema(overview),
    ...adviseOnProcess(overview),
    ...adviseOnLag(overview),
    ...adviseOnQueue(overview),
    ...adviseOnFailures(overview),
    ...adviseOnFailedJobs(overview),
    ...adviseOnSweeps(overview),
  ].toSorted((one, other) => one.level.localeCompare(other.level));
}

function adviseOnDatabase({ schema, lag }: Overview): Advice[] {
  const problem = schema.problem ?? lag.problem;
  // Without the schema the lag cannot be read either, and that is told as what it is.
  if (problem === undefined || (schema.value && schema.value.state !== 'fits')) return [];
  return [
    {
      level: 'bad',
      what: `PostgreSQL does not answer: ${problem}`,
      why: 'No total can become right until it does. Nothing is lost, and work goes on by itself.',
      command: 'gift-budgets status',
    },
  ];
}

function adviseOnSchema({ schema }: Overview): Advice[] {
  const misfit = schema.value && describeMisfit(schema.value);
  if (!misfit) return [];
  return [
    {
      level: 'bad',
      what: `The schema does not fit: ${misfit.problem}`,
      why:
        'This process waits, with no job failed, and goes on as soon as the schema fits' +
        (misfit.isCommand ? '.' : `: ${misfit.todo}.`),
      ...(misfit.isCommand && { command: misfit.todo }),
    },
  ];
}

function adviseOnProcess({ standsStill }: Overview): Advice[] {
  if (standsStill === null) return [];
  return [
    {
      level: 'bad',
      what: `This process stands still: ${standsStill}`,
      why: 'A connection hangs, it seems. Stop it and start it again; nothing is lost by that.',
      command: 'gift-budgets start',
    },
  ];
}

function adviseOnLag({ lag }: Overview): Advice[] {
  if (lag.value === undefined || lag.value.seconds <= LONG_LAG_SECONDS) return [];
  const { waitsLongest: pair } = lag.value;
  return [
    {
      level: 'bad',
      what: `The totals are ${seconds(lag.value.seconds)} behind`,
      why: pair
        ? 'Somebody may hold the row of the budget that waits longest. This says who, and how to end it:'
        : 'Many budgets are being recalculated. If it does not go down, this says more:',
      command: pair
        ? `gift-budgets explain --person ${pair.personId} --occasion ${pair.occasionId}`
        : 'gift-budgets status',
    },
  ];
}

function adviseOnQueue({ queue, backend, sinceLastEventMs }: Overview): Advice[] {
  const late = 'Totals still become right, by their marks, only some hundred milliseconds later.';
  if (queue.value === undefined) {
    return [
      {
        level: 'bad',
        what: `The queue does not answer: ${queue.problem}`,
        why: `${late} Events wait with those who send them.`,
        command: backend === 'redis' ? 'redis-cli -u "$REDIS_URL" ping' : 'gift-budgets status',
      },
    ];
  }
  const { jobs, isPaused } = queue.value;
  const waiting = (jobs.waiting ?? 0) + (jobs.prioritized ?? 0);
  if (isPaused) {
    return [
      {
        level: 'warn',
        what: 'The queue is paused: somebody paused it, for all workers',
        why: `${late} Its page has a button to resume it.`,
        page: `${QUEUE_BOARD_PATH}/queue/gift-events`,
      },
    ];
  }
  if (waiting === 0 || (jobs.active ?? 0) > 0 || sinceLastEventMs < IDLE_MAX_MS) return [];
  return [
    {
      level: 'bad',
      what: `${count(waiting, 'job')} wait${waiting === 1 ? 's' : ''}, and nobody takes any`,
      why: `${late} Stop this process and start it again.`,
      command: 'gift-budgets start',
    },
  ];
}

function adviseOnFailures({ failures }: Overview): Advice[] {
  if (!failures.value || failures.value.count === 0) return [];
  return [
    {
      level: 'warn',
      what: `${count(failures.value.count, 'total')} cannot be stored`,
      why: 'What is stored stays as it was until the assignments change. Which and why:',
      command: 'gift-budgets failures',
    },
  ];
}

function adviseOnFailedJobs({ queue }: Overview): Advice[] {
  const failed = queue.value?.jobs.failed ?? 0;
  if (failed === 0) return [];
  return [
    {
      level: 'warn',
      what: `${count(failed, 'gift event')} failed`,
      why:
        'A malformed one is for its producer to mend; remove it. The others can be retried, once ' +
        'what the reason says is mended.',
      page: FAILED_JOBS_PAGE,
    },
  ];
}

/** A sweep may take its time, and begin late by the length of the last one. */
const SWEEP_LATE_FACTOR = 3;

function adviseOnSweeps({ sweeps, sweepMode, sweepIntervalMs, at }: Overview): Advice[] {
  const last = sweeps.value?.find(({ finishedAt }) => finishedAt !== null);
  if (last === undefined) return [];
  const advice: Advice[] = [];
  if (last.drifted > 0) {
    advice.push({
      level: last.mode === 'report' ? 'bad' : 'warn',
      what:
        `The last sweep found ${count(last.drifted, 'total')} wrong with no mark` +
        (last.mode === 'repair' ? `, and repaired ${last.repaired}` : ''),
      why:
        'Something wrote round the triggers: a restore, a load with triggers off. ' +
        (last.mode === 'repair' ? 'Whether all is right now:' : 'This repairs it:'),
      command: last.mode === 'repair' ? 'gift-budgets verify' : 'gift-budgets repair',
    });
  }
  const ageMs = at.getTime() - last.finishedAt!.getTime();
  if (sweepMode !== 'off' && ageMs > SWEEP_LATE_FACTOR * sweepIntervalMs + 60_000) {
    advice.push({
      level: 'warn',
      what: `No sweep has finished for ${seconds(ageMs / 1_000)}`,
      why: 'Drift would not be noticed meanwhile. This looks for it now:',
      command: 'gift-budgets verify',
    });
  }
  return advice;
}

const UNITS = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'min'],
] as const;

/** A length of time in its two largest units. */
export function seconds(total: number): string {
  if (total < 10) return `${total.toFixed(1)} s`;
  let rest = Math.round(total);
  const parts: string[] = [];
  for (const [size, unit] of UNITS) {
    if (rest >= size) parts.push(`${Math.floor(rest / size)} ${unit}`);
    rest %= size;
  }
  if (rest > 0 || parts.length === 0) parts.push(`${rest} s`);
  return parts.slice(0, 2).join(' ');
}
