import { Migration } from '@mikro-orm/migrations';
import { forget, remember } from '../src/migrating/ledger.ts';

/**
 * Budgets as `BudgetReader` tells them, for readers in any language. Each column is computed from its
 * own row, so a condition on the pair reaches the indexes, and a column that is not asked for costs
 * nothing. The percentage is rounded half even, as money.ts does: in whole numbers, because a division
 * of PostgreSQL is rounded itself, and its round() is half away from zero.
 *
 * `is_pending` is what src/budgets/marks.ts says, and test/schema/budget-status.test.ts holds the two
 * together. The marks for everything are looked up once for a query, not once for each budget: the least
 * of their keys is all that matters, and one without a key is an empty array, less than any other. The
 * keys of a table that others made may be narrower, which an array does not even out by itself. A view
 * keeps the types of its columns from being altered: drop and create it around that.
 *
 * Locks: none. Undone by dropping the view.
 */
export class Migration20261124000200_create_budget_status extends Migration {
  override up(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`create view budget_status (
        person_id, occasion_id, amount, spent, remaining, percent_used, is_over, is_pending, currency
      ) as
      select b.person_id,
             b.occasion_id,
             b.budget_amount,
             b.budget_spent,
             b.budget_amount - b.budget_spent,
             case when b.budget_amount > 0 then 0.01 * (
               u.hundredths + case
                 when 2 * abs(u.rest) > b.budget_amount
                   or (2 * abs(u.rest) = b.budget_amount and mod(u.hundredths, 2) <> 0)
                 then sign(u.rest) else 0 end
             ) end,
             coalesce(b.budget_spent > b.budget_amount, false),
             exists (
               select from pending_recalculations m
                where m.person_id = b.person_id and m.occasion_id = b.occasion_id and not m.everything
               offset 0
             ) or coalesce(
               array[b.person_id::bigint, b.occasion_id::bigint] > (
                 select min(case when e.person_id is null or e.occasion_id is null then '{}'
                                 else array[e.person_id, e.occasion_id] end)
                   from pending_recalculations e
                  where e.everything
               ), false
             ),
             b.budget_currency
        from person_occasions b
       cross join lateral (
         select div(10000 * b.budget_spent, nullif(b.budget_amount, 0)) as hundredths,
                mod(10000 * b.budget_spent, nullif(b.budget_amount, 0)) as rest
       ) as u`);
    this.addSql(remember('view', 'budget_status'));
  }

  override down(): void {
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`drop view budget_status`);
    this.addSql(forget('view', 'budget_status'));
  }
}
