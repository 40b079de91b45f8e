import { LiveMigration } from '../src/migrating/live-migration.ts';

/**
 * For the budgets of a person, with their amounts. budget_spent stands in no index: a new total would
 * have to change the index too.
 *
 * Locks: SHARE UPDATE EXCLUSIVE on person_occasions while the index is built, which no writer waits for.
 * Undone by dropping the index, under the same lock.
 */
export class Migration20261123000400_add_person_occasion_budget_index extends LiveMigration {
  override async up(): Promise<void> {
    await this.buildIndex(
      'idx_person_occasion_budget',
      'person_occasions',
      '(person_id, occasion_id, budget_amount)',
    );
  }

  override async down(): Promise<void> {
    await this.dropIndex('idx_person_occasion_budget', 'person_occasions');
  }
}
