import { Migration } from '@mikro-orm/migrations';
import { forget, remember } from '../src/migrating/ledger.ts';

/**
 * The one place that says what counts towards a budget. Whoever replaces the view (create or replace
 * view, same columns) changes what every part computes.
 *
 * Locks: none. Undone by dropping the view.
 */
export class Migration20261123000600_create_budget_contributions extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`create view budget_contributions (person_id, occasion_id, amount) as
      select person_id, occasion_id, amount
        from gift_persons
       where occasion_id is not null and amount is not null`);
    this.addSql(remember('view', 'budget_contributions'));
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`drop view budget_contributions`);
    this.addSql(forget('view', 'budget_contributions'));
  }
}
