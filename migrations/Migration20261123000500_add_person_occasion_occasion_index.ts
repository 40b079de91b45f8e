import { LiveMigration } from '../src/migrating/live-migration.ts';

/**
 * For all budgets of an occasion, in order of person; the primary key begins with the person.
 *
 * Locks: SHARE UPDATE EXCLUSIVE on person_occasions while the index is built, which no writer waits for.
 * Undone by dropping the index, under the same lock.
 */
export class Migration20261123000500_add_person_occasion_occasion_index extends LiveMigration {
  override async up(): Promise<void> {
    await this.buildIndex(
      'idx_person_occasion_occasion',
      'person_occasions',
      '(occasion_id, person_id)',
    );
  }

  override async down(): Promise<void> {
    await this.dropIndex('idx_person_occasion_occasion', 'person_occasions');
  }
}
