import { describeError } from '../describe-error.ts';
import { openGiftEventsQueue, type QueueConnection } from '../queue.ts';

/** How many jobs the queue has in each state, or why that cannot be told. */
export type QueueCounts =
  | { readonly backend: string; readonly jobs: Readonly<Record<string, number>> }
  | { readonly backend: string; readonly unreachable: string };

/**
 * Asks the queue; one that is away is told as such, in bounded time, because catch-up goes on
 * without it and the rest is still worth to be known.
 *
 * @param prepare throws where the queue cannot be there.
 */
export async function readQueueCounts(
  connection: QueueConnection,
  prepare: () => Promise<void>,
): Promise<QueueCounts> {
  const { backend } = connection;
  try {
    await prepare();
    return { backend, jobs: await countJobs(connection) };
  } catch (error) {
    return { backend, unreachable: describeError(error) };
  }
}

async function countJobs(connection: QueueConnection): Promise<Record<string, number>> {
  const open = openGiftEventsQueue(connection, () => {});
  try {
    await open.connected();
    return await open.queue.getJobCounts();
  } finally {
    await open.close().catch(() => {});
  }
}
