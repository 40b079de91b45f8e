import { Migration } from '@mikro-orm/migrations';

/**
 * For all budgets of an occasion, in order of person; the primary key begins with the person.
 *
 * Locks: SHARE on person_occasions while the index is built. Undone by dropping the index.
 */
export class Migration20261123000500_add_person_occasion_occasion_index extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(
      `create index idx_person_occasion_occasion on person_occasions (occasion_id, person_id)`,
    );
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`drop index idx_person_occasion_occasion`);
  }
}
