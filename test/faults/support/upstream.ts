// An upstream service in a process of its own: changes an assignment and sends its event, in the
// order that it is told to. It says each step on standard output, and before the last one it waits
// for a line on standard input, so that it can be killed just there.
import { once } from 'node:events';
import pg from 'pg';
import { openGiftEventsQueue, type QueueConnection } from '../../../src/queue.ts';
import type { Pair } from '../../../src/events/contract.ts';
import { assign } from '../../support/budgets.ts';

/** What the upstream is told to do. */
export interface UpstreamOrder {
  readonly url: string;
  readonly queue: QueueConnection;
  readonly pair: Pair;
  readonly amount: string;
  readonly steps: readonly ('commit' | 'rollback' | 'send')[];
}

const { url, queue, pair, amount, steps } = JSON.parse(process.argv[2]!) as UpstreamOrder;
const open = openGiftEventsQueue(queue, () => {});
// The machine is loaded: a first connection may take longer than the queue waits for it.
while (
  !(await open.connected().then(
    () => true,
    () => false,
  ))
);
const client = new pg.Client({ connectionString: url });
await client.connect();
await client.query('begin');
await assign(client, pair, amount);
for (const step of steps) {
  if (step === steps.at(-1)) await once(process.stdin, 'data');
  if (step === 'send') {
    const job = await open.queue.add('gift.assigned', { version: 1, affected: [pair] });
    console.log(`sent ${job.id}`);
  } else {
    await client.query(step);
    console.log(`${step} done`);
  }
}
await client.end();
await open.close();
process.stdin.destroy();
