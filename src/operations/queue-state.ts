import type { OpenQueue } from '../queue.ts';

export interface FailedJob {
  readonly id: string;
  /** What its producer wrote; it may be anything. */
  readonly name: string;
  readonly reason: string;
  readonly failedAt: Date | null;
}

export interface QueueState {
  /** How many jobs are in each state. */
  readonly jobs: Readonly<Record<string, number>>;
  /** The last that failed, the newest first. */
  readonly lastFailed: readonly FailedJob[];
  /** Whether somebody paused the whole queue. */
  readonly isPaused: boolean;
}

const FAILED_SHOWN_MAX = 5;

/** A few commands, whatever the queue holds. */
export async function readQueueState(open: OpenQueue): Promise<QueueState> {
  await open.connected();
  const { queue } = open;
  const [jobs, failed, isPaused] = await Promise.all([
    queue.getJobCounts(),
    queue.getFailed(0, FAILED_SHOWN_MAX - 1),
    queue.isPaused(),
  ]);
  const lastFailed = failed.map(({ id, name, failedReason, finishedOn }) => ({
    id: id ?? '',
    name: name ?? '',
    reason: failedReason ?? '',
    failedAt: finishedOn === undefined ? null : new Date(finishedOn),
  }));
  return { jobs, lastFailed, isPaused };
}
