import type { Queue } from 'bullmq';
import pg from 'pg';
import { DEFAULT_SCHEMA } from 'bullmq';
import type { QueueConnection } from '../../src/queue.ts';

/**
 * Removes all jobs. In PostgreSQL not by `obliterate`, which drops a sequence: only its owner may, and
 * make it again.
 */
export async function emptyQueue(queue: Queue, connection: QueueConnection): Promise<void> {
  if (connection.backend === 'redis') return await queue.obliterate({ force: true });
  const client = new pg.Client({ connectionString: connection.url });
  await client.connect();
  try {
    const { rows } = await client.query<{ name: string }>(
      `select format('%I.%I', schemaname, tablename) as name from pg_tables
        where schemaname = $1 and tablename <> 'migration'`,
      [connection.schema ?? DEFAULT_SCHEMA],
    );
    await client.query(rows.map(({ name }) => `delete from ${name}`).join(';'));
  } finally {
    await client.end();
  }
}
