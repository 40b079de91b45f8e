import { assertSchemaCompatibility, SchemaMigrationRequiredError } from 'bullmq';
import type { Stores } from '../stores.ts';
import { CommandError } from './context.ts';

/**
 * The queue needs tables where it lives in PostgreSQL, which the MikroORM CLI does not make, and
 * without which a worker would wait for ever.
 *
 * @throws {CommandError} that says what to type, where they are missing.
 */
export async function mustHaveQueueTables({ database, queue }: Stores): Promise<void> {
  if (queue.backend === 'redis') return;
  try {
    await assertSchemaCompatibility(database.pool, queue.schema);
  } catch (error) {
    if (!(error instanceof SchemaMigrationRequiredError)) throw error;
    throw new CommandError(
      'the database lacks the tables of the queue: run "gift-budgets migrate", ' +
        'or set REDIS_URL where the queue is to live in Redis',
    );
  }
}
