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
    const { noop, naive, ours, hotShare } = await measureDrains({
      database,
      queues,
      events: 1_500,
      naiveEvents: 500,
      rounds: 9,
    });
    const { rows } = await database.pool.query<{ call: string; ms: number; calls: string }>(
      `select left(regexp_replace(query, '\\s+', ' ', 'g'), 60) as call, calls,
              round(total_exec_time)::int as ms
         from pg_stat_statements order by total_exec_time desc limit 5`,
    );
    return {
      table: [
        ...rateTable([noop, naive, ours], 'events/s'),
        'where PostgreSQL spends its time (pg_stat_statements):',
        ...rows.map(({ call, ms, calls }) => `  ${String(ms).padStart(7)} ms ${calls} × ${call}`),
      ],
      figures: [
        { key: 'vs_noop', value: ratioOf(ours, noop) },
        { key: 'vs_naive', value: ratioOf(ours, naive) },
        { key: 'hot_share', value: hotShare },
      ],
    };
  });
}
