import { Migration } from '@mikro-orm/migrations';
import { forgetTable, remember } from '../src/migrating/ledger.ts';

/**
 * Pairs whose sum cannot be stored, listed until a change makes it fit.
 *
 * Locks: none. Undone by dropping the table.
 */
export class Migration20261123000800_create_recalculation_failures extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`create table recalculation_failures (
      person_id bigint not null,
      occasion_id bigint not null,
      reason text not null,
      total text null,
      attempts int not null default 1,
      first_failed_at timestamptz not null default clock_timestamp(),
      last_failed_at timestamptz not null default clock_timestamp(),
      primary key (person_id, occasion_id)
    )`);
    this.addSql(remember('table', 'recalculation_failures'));
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`drop table recalculation_failures`);
    this.addSql(forgetTable('recalculation_failures'));
  }
}
