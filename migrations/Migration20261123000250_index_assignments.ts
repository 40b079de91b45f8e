import { LiveMigration } from '../src/migrating/live-migration.ts';

/**
 * For the sum of a pair, without a look at the table, and for the pairs of a gift.
 *
 * Locks: SHARE UPDATE EXCLUSIVE on gift_persons while an index is built, which no writer waits for.
 * Undone by dropping the indexes, under the same lock.
 */
export class Migration20261123000250_index_assignments extends LiveMigration {
  override async up(): Promise<void> {
    await this.buildIndex('idx_gift_person_gift', 'gift_persons', '(gift_id)');
    await this.buildIndex(
      'idx_gift_person_contribution',
      'gift_persons',
      '(person_id, occasion_id) include (amount)',
    );
  }

  override async down(): Promise<void> {
    await this.dropIndex('idx_gift_person_contribution', 'gift_persons');
    await this.dropIndex('idx_gift_person_gift', 'gift_persons');
  }
}
