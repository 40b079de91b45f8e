import { Migration } from '@mikro-orm/migrations';

/**
 * What the other migrations made, so that undoing them removes that and nothing else: any of the tables
 * of the first two may be there already, made by others.
 *
 * Locks: none. Undone by dropping the table.
 */
export class Migration20261123000000_create_gift_budgets_objects extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`create table gift_budgets_objects (
      kind text not null,
      on_table text not null,
      name text not null,
      primary key (kind, on_table, name)
    )`);
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`drop table gift_budgets_objects`);
  }
}
