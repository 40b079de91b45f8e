import { Migration } from '@mikro-orm/migrations';

/**
 * The one place that says what counts towards a budget. Whoever replaces the view (create or replace
 * view, same columns) changes what every part computes.
 *
 * Locks: none. Undone by dropping the view.
 */
export class Migration20261123000600_create_budget_contributions extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`create view budget_contributions (person_id, occasion_id, amount) as
      select person_id, occasion_id, amount
        from gift_persons
       where occasion_id is not null and amount is not null`);
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`drop view budget_contributions`);
  }
}
