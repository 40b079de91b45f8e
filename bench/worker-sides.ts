// The process of a worker that ours is compared with: see WorkerSide.
import type { Processor } from 'bullmq';
import pg from 'pg';
import type { Pair } from '../src/events/contract.ts';
import { createGiftEventsWorker, type QueueConnection } from '../src/queue.ts';
import { recalculateNaively } from './naive.ts';

export interface WorkerSide {
  /**
   * - `no-op`: the same queue, jobs and settings, a processor that does nothing;
   * - `naive`: one transaction per job that locks, sums and stores one pair.
   */
  readonly kind: 'no-op' | 'naive';
  readonly queue: QueueConnection;
  readonly databaseUrl: string;
  readonly concurrency: number;
}

const side = JSON.parse(process.argv[2]!) as WorkerSide;
const processor = side.kind === 'naive' ? naive() : async () => '';
const worker = createGiftEventsWorker(side.queue, processor, side.concurrency);
worker.on('error', (error) => console.error(error));
await worker.waitUntilReady();
void worker.run();
console.error('started');

function naive(): Processor<unknown, unknown, string> {
  const pool = new pg.Pool({ connectionString: side.databaseUrl, max: side.concurrency });
  return async (job) => {
    const { affected } = job.data as { affected: [Pair] };
    await recalculateNaively(pool, affected[0]);
    return 'done';
  };
}
