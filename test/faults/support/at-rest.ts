import { expect } from 'vitest';
import type { Queryable } from '../../../src/database.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../../../src/queue.ts';
import { countMarks, eventually, wrongTotals } from '../../support/budgets.ts';
import type { Written } from './load.ts';

const UNFINISHED = ['waiting', 'active', 'delayed', 'prioritized'] as const;

export interface AtRestOptions {
  readonly timeoutMs?: number;
}

/**
 * Waits until there are no marks and no unfinished jobs, and returns how long that took in
 * milliseconds. Errors of stores that are just coming back count as not yet.
 */
export async function untilAtRest(
  db: Queryable,
  connection: QueueConnection,
  { timeoutMs = 60_000 }: AtRestOptions = {},
): Promise<number> {
  const startedAt = performance.now();
  const open = openGiftEventsQueue(connection, () => {});
  try {
    await eventually(
      async () => await readUnfinished(db, open).catch(String),
      (read) => typeof read !== 'string' && read.jobs === 0 && read.marks === 0,
      timeoutMs,
    );
    return performance.now() - startedAt;
  } finally {
    await open.close();
  }
}

/** Jobs first: a job may still write a mark, and catch-up writes no job. */
async function readUnfinished(db: Queryable, open: OpenQueue) {
  await open.connected();
  const jobs = await open.queue.getJobCountByTypes(...UNFINISHED);
  return { jobs, marks: await countMarks(db) };
}

export interface ExpectAtRestOptions extends AtRestOptions {
  /** What the printed line calls the fault. */
  readonly name: string;
  readonly written: Pick<Written, 'changes' | 'events'>;
  /** More for the printed line: what was measured on the way. */
  readonly note?: string;
}

/**
 * Waits until all is at rest, and expects every total to be the sum of its assignments (but those
 * of listed recalculation failures) and no job to have failed for good. Prints what it took.
 */
export async function expectAtRest(
  db: Queryable,
  connection: QueueConnection,
  { name, written, note, ...options }: ExpectAtRestOptions,
): Promise<void> {
  const tookMs = await untilAtRest(db, connection, options);
  const wrong = await wrongUnlisted(db);
  const measured = note === undefined ? '' : `; ${note}`;
  console.log(
    `fault ${name} (${connection.backend}): ${written.changes} changes, ${written.events} events, ` +
      `at rest after ${(tookMs / 1_000).toFixed(1)} s, ${wrong.length} wrong${measured}`,
  );
  expect(written.changes, 'a load that changes something').toBeGreaterThan(0);
  expect(wrong).toEqual([]);
  expect(await failedJobs(connection), 'jobs failed for good').toEqual([]);
}

/** The wrong totals but those of listed recalculation failures. */
export async function wrongUnlisted(db: Queryable): Promise<string[]> {
  const { rows } = await db.query(
    `select person_id || '-' || occasion_id as pair from recalculation_failures`,
  );
  const listed = new Set(rows.map(({ pair }) => pair as string));
  return (await wrongTotals(db)).filter((wrong) => !listed.has(wrong.split(':')[0]!));
}

/** Why jobs failed for good, a few of them. */
async function failedJobs(connection: QueueConnection): Promise<(string | undefined)[]> {
  const open = openGiftEventsQueue(connection, () => {});
  try {
    await open.connected();
    return (await open.queue.getFailed(0, 9)).map((job) => job.failedReason);
  } finally {
    await open.close();
  }
}
