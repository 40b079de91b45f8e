import { Migration } from '@mikro-orm/migrations';

/**
 * Pairs whose sum cannot be stored, listed until a change makes it fit.
 *
 * Locks: none. Undone by dropping the table.
 */
export class Migration20261123000800_create_recalculation_failures extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '2s'`);
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
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    this.addSql(`drop table recalculation_failures`);
  }
}
