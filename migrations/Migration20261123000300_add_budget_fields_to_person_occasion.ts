import { Migration } from '@mikro-orm/migrations';

/**
 * The budget: what is planned, what is used, in which currency.
 *
 * Locks: ACCESS EXCLUSIVE on person_occasions. The columns are metadata only, because their defaults
 * are constants; the checks are added NOT VALID, as no row can break them: all have the default.
 * Room is kept on each page (fillfactor), so that a new total is written beside the old one without
 * touching an index: with random keys 85 gave all updates that way, in key order 50 were needed.
 * Undone by dropping the columns, which drops their checks; the notes and amounts are lost.
 */
export class Migration20261123000300_add_budget_fields_to_person_occasion extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`alter table person_occasions
      add column budget_amount numeric(10,2) null,
      add column budget_spent numeric(10,2) not null default 0,
      add column budget_currency varchar(3) not null default 'USD',
      add column budget_notes text null,
      add constraint person_occasions_budget_amount_check
        check (budget_amount >= 0 and budget_amount <> 'NaN'::numeric) not valid,
      add constraint person_occasions_budget_spent_check
        check (budget_spent <> 'NaN'::numeric) not valid,
      add constraint person_occasions_budget_currency_check
        check (budget_currency ~ '^[A-Z]{3}$') not valid,
      set (fillfactor = 85)`);
    this.addSql(
      `alter table person_occasions validate constraint person_occasions_budget_amount_check`,
    );
    this.addSql(
      `alter table person_occasions validate constraint person_occasions_budget_spent_check`,
    );
    this.addSql(
      `alter table person_occasions validate constraint person_occasions_budget_currency_check`,
    );
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`alter table person_occasions
      drop column budget_amount,
      drop column budget_spent,
      drop column budget_currency,
      drop column budget_notes,
      reset (fillfactor)`);
  }
}
