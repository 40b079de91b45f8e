import { prepareQueue, type QueueConnection } from '../src/queue.ts';
import { measureDrains } from './drain.ts';
import { type Outcome, rateTable, ratioOf } from './measure.ts';
import { withPostgres } from './servers.ts';

/** The events benchmark with the queue in PostgreSQL: reported, not bound. */
export async function postgresQueue(): Promise<Outcome> {
  return await withPostgres(async (database) => {
    const inSchema = (schema: string): QueueConnection => ({
      backend: 'postgres',
      url: database.url,
      schema,
    });
    const queues = { noop: inSchema('noop'), naive: inSchema('naive'), ours: inSchema('bullmq') };
    for (const queue of Object.values(queues)) await prepareQueue(queue);
    const { noop, naive, ours, hotShare, postgres } = await measureDrains({
      database,
      queues,
      events: 1_500,
      naiveEvents: 500,
      rounds: 9,
    });
    return {
      table: [...rateTable([noop, naive, ours], 'events/s'), ...postgres],
      figures: [
        { key: 'vs_noop', value: ratioOf(ours, noop) },
        { key: 'vs_naive', value: ratioOf(ours, naive) },
        { key: 'hot_share', value: hotShare },
      ],
    };
  });
}
