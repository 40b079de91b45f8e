import { LiveMigration } from '../src/migrating/live-migration.ts';

/**
 * The budget: what is planned, what is used, in which currency.
 *
 * Locks: ACCESS EXCLUSIVE on person_occasions for a moment. The columns are metadata only, because their
 * defaults are constants; the checks are added NOT VALID, and validated under SHARE UPDATE EXCLUSIVE.
 * Room is kept on each page (fillfactor), so that a new total is written beside the old one without
 * touching an index: with random keys 85 gave all updates that way, in key order 50 were needed.
 * Undone by dropping the columns, which drops their checks; the notes and amounts are lost.
 */
export class Migration20261123000300_add_budget_fields_to_person_occasion extends LiveMigration {
  override async up(): Promise<void> {
    await this.addColumns('person_occasions', {
      budget_amount: {
        definition: 'numeric(10,2) null',
        constraint: {
          name: 'person_occasions_budget_amount_check',
          definition: `check (budget_amount >= 0 and budget_amount <> 'NaN'::numeric)`,
        },
      },
      budget_spent: {
        definition: 'numeric(10,2) not null default 0',
        constraint: {
          name: 'person_occasions_budget_spent_check',
          definition: `check (budget_spent <> 'NaN'::numeric)`,
        },
      },
      budget_currency: {
        definition: `varchar(3) not null default 'USD'`,
        constraint: {
          name: 'person_occasions_budget_currency_check',
          definition: `check (budget_currency ~ '^[A-Z]{3}$')`,
        },
      },
      budget_notes: { definition: 'text null' },
    });
    await this.setStorage('person_occasions', 'fillfactor', '85');
  }

  override async down(): Promise<void> {
    await this.resetStorage('person_occasions', 'fillfactor');
    await this.dropColumns('person_occasions', [
      'budget_amount',
      'budget_spent',
      'budget_currency',
      'budget_notes',
    ]);
  }
}
