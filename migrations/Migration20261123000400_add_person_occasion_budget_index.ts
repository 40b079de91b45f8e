import { Migration } from '@mikro-orm/migrations';

/**
 * For the budgets of a person, with their amounts. budget_spent stands in no index: a new total would
 * have to change the index too.
 *
 * Locks: SHARE on person_occasions while the index is built. Undone by dropping the index.
 */
export class Migration20261123000400_add_person_occasion_budget_index extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(
      `create index idx_person_occasion_budget on person_occasions (person_id, occasion_id, budget_amount)`,
    );
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`drop index idx_person_occasion_budget`);
  }
}
