import { remember } from '../src/migrating/ledger.ts';
import { LiveMigration } from '../src/migrating/live-migration.ts';

/**
 * The triggers that mark new budgets, and those that somebody else than the recalculation changes.
 *
 * A new budget is marked because a replaced budget_contributions may have contributions for it
 * already; a foreign change of budget_spent is told from ours by the setting
 * gift_budgets.recalculating. Budgets that exist already are all marked, by one mark, behind the lock
 * that waits for whoever is making one.
 *
 * Locks: SHARE ROW EXCLUSIVE on person_occasions, for a moment. Undone by dropping triggers and
 * functions, ACCESS EXCLUSIVE for a moment; from then on nothing of it is marked.
 */
export class Migration20261123000950_mark_changed_budgets extends LiveMigration {
  override async up(): Promise<void> {
    const schema = await this.currentSchema();
    const header = `returns trigger language plpgsql security definer
      set search_path = pg_catalog, ${schema}, pg_temp`;
    await this.shortly(
      `create or replace function mark_new_budgets() ${header} as $$
begin
  insert into ${schema}.pending_recalculations (person_id, occasion_id)
  select person_id, occasion_id from new_rows;
  return null;
end $$`,
      `create or replace trigger person_occasions_mark_inserted after insert on person_occasions
        referencing new table as new_rows for each statement execute function mark_new_budgets()`,
      `create or replace function mark_changed_budget() ${header} as $$
begin
  insert into ${schema}.pending_recalculations (person_id, occasion_id)
  values (new.person_id, new.occasion_id);
  if (old.person_id, old.occasion_id) is distinct from (new.person_id, new.occasion_id) then
    insert into ${schema}.pending_recalculations (person_id, occasion_id)
    values (old.person_id, old.occasion_id);
  end if;
  return null;
end $$`,
      `create or replace trigger person_occasions_mark_updated after update on person_occasions
        for each row
        when (old.person_id is distinct from new.person_id
           or old.occasion_id is distinct from new.occasion_id
           or (old.budget_spent is distinct from new.budget_spent
               and current_setting('gift_budgets.recalculating', true) is distinct from 'on'))
        execute function mark_changed_budget()`,
      `insert into pending_recalculations (everything)
        select true where exists (select from person_occasions)`,
      ...FUNCTIONS.map((name) => remember('function', name)),
      ...TRIGGERS.map((name) => remember('trigger', name, 'person_occasions')),
    );
  }

  override async down(): Promise<void> {
    await this.dropTriggers('person_occasions', TRIGGERS, FUNCTIONS);
  }
}

const FUNCTIONS = ['mark_new_budgets', 'mark_changed_budget'];
const TRIGGERS = ['person_occasions_mark_inserted', 'person_occasions_mark_updated'];
