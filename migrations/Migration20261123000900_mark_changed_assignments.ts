import { Migration } from '@mikro-orm/migrations';

/**
 * The triggers that mark every pair whose total may have changed, in the writer's own transaction.
 *
 * Statement-level with transition tables: a bulk statement pays one INSERT … SELECT, and marks each
 * pair once. DISTINCT ON sorts, where a plain DISTINCT or UNION would set up a hash table for every
 * single row: writers kept 0.83 of their rate with that, 0.91 with the sort. Any changed
 * row marks, and a move marks both pairs: marking too much costs a sum, too little costs the truth.
 * The functions are SECURITY DEFINER with a fixed search_path, so that the upstream's role needs no
 * new privilege. A new budget is marked because a replaced budget_contributions may have
 * contributions for it already; a foreign change of budget_spent is told from ours by the setting
 * gift_budgets.recalculating. Budgets that exist already are all marked, by one mark.
 *
 * Locks: SHARE ROW EXCLUSIVE on gift_persons and person_occasions, for a moment. Undone by dropping
 * triggers and functions; from then on nothing is marked.
 */
export class Migration20261123000900_mark_changed_assignments extends Migration {
  override async up(): Promise<void> {
    const schema = await this.currentSchema();
    const header = `returns trigger language plpgsql security definer
      set search_path = pg_catalog, ${schema}, pg_temp`;
    this.addSql(`set local lock_timeout = '2s'`);

    this.addSql(`create function mark_changed_assignments() ${header} as $$
begin
  if tg_op = 'INSERT' then
    insert into ${schema}.pending_recalculations (person_id, occasion_id)
    select distinct on (person_id, occasion_id) person_id, occasion_id
      from new_rows where occasion_id is not null;
  elsif tg_op = 'DELETE' then
    insert into ${schema}.pending_recalculations (person_id, occasion_id)
    select distinct on (person_id, occasion_id) person_id, occasion_id
      from old_rows where occasion_id is not null;
  elsif tg_op = 'UPDATE' then
    insert into ${schema}.pending_recalculations (person_id, occasion_id)
    select distinct on (person_id, occasion_id) person_id, occasion_id
      from (select person_id, occasion_id from old_rows
            union all
            select person_id, occasion_id from new_rows) changed
     where occasion_id is not null;
  else
    insert into ${schema}.pending_recalculations (everything) values (true);
  end if;
  return null;
end $$`);
    this.addSql(`create trigger gift_persons_mark_inserted after insert on gift_persons
      referencing new table as new_rows for each statement execute function mark_changed_assignments()`);
    this.addSql(`create trigger gift_persons_mark_updated after update on gift_persons
      referencing old table as old_rows new table as new_rows
      for each statement execute function mark_changed_assignments()`);
    this.addSql(`create trigger gift_persons_mark_deleted after delete on gift_persons
      referencing old table as old_rows for each statement execute function mark_changed_assignments()`);
    this.addSql(`create trigger gift_persons_mark_truncated after truncate on gift_persons
      for each statement execute function mark_changed_assignments()`);

    this.addSql(`create function mark_new_budgets() ${header} as $$
begin
  insert into ${schema}.pending_recalculations (person_id, occasion_id)
  select person_id, occasion_id from new_rows;
  return null;
end $$`);
    this.addSql(`create trigger person_occasions_mark_inserted after insert on person_occasions
      referencing new table as new_rows for each statement execute function mark_new_budgets()`);

    this.addSql(`create function mark_changed_budget() ${header} as $$
begin
  insert into ${schema}.pending_recalculations (person_id, occasion_id)
  values (new.person_id, new.occasion_id);
  if (old.person_id, old.occasion_id) is distinct from (new.person_id, new.occasion_id) then
    insert into ${schema}.pending_recalculations (person_id, occasion_id)
    values (old.person_id, old.occasion_id);
  end if;
  return null;
end $$`);
    this.addSql(`create trigger person_occasions_mark_updated after update on person_occasions
      for each row
      when (old.person_id is distinct from new.person_id
         or old.occasion_id is distinct from new.occasion_id
         or (old.budget_spent is distinct from new.budget_spent
             and current_setting('gift_budgets.recalculating', true) is distinct from 'on'))
      execute function mark_changed_budget()`);

    this.addSql(`insert into pending_recalculations (everything)
      select true where exists (select from person_occasions)`);
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '2s'`);
    for (const name of ['mark_updated', 'mark_inserted']) {
      this.addSql(`drop trigger person_occasions_${name} on person_occasions`);
    }
    for (const name of ['mark_truncated', 'mark_deleted', 'mark_updated', 'mark_inserted']) {
      this.addSql(`drop trigger gift_persons_${name} on gift_persons`);
    }
    this.addSql('drop function mark_changed_budget()');
    this.addSql('drop function mark_new_budgets()');
    this.addSql('drop function mark_changed_assignments()');
  }

  /** The schema that unqualified tables are created in, quoted. */
  private async currentSchema(): Promise<string> {
    const [row] = (await this.execute('select quote_ident(current_schema()) as schema')) as [
      { schema: string },
    ];
    return row.schema;
  }
}
