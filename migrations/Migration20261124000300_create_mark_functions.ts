import { Migration } from '@mikro-orm/migrations';
import { forget, remember } from '../src/migrating/ledger.ts';

/**
 * For triggers and programs of others, who replace budget_contributions or load behind the triggers:
 * functions that mark one budget, many, or all. What names no whole pair marks nothing.
 *
 * SECURITY DEFINER, so that who may call them needs no right to write marks; and nobody but the owner may
 * until it is granted, because every mark costs a sum.
 *
 * Locks: none. Undone by dropping the functions, but not while functions of others name them: the writers
 * that these stand behind would fail from then on.
 */
export class Migration20261124000300_create_mark_functions extends Migration {
  override async up(): Promise<void> {
    const [row] = await this.execute('select quote_ident(current_schema()) as schema');
    const { schema } = row as { schema: string };
    const header = `returns void language sql security definer
      set search_path = pg_catalog, ${schema}, pg_temp`;
    this.addSql(`set local lock_timeout = '50ms'`);
    this.addSql(`create function mark_budget(person_id bigint, occasion_id bigint) ${header} as $$
insert into ${schema}.pending_recalculations (person_id, occasion_id)
select $1, $2 where $1 is not null and $2 is not null
$$`);
    this.addSql(`create function mark_budgets(person_ids bigint[], occasion_ids bigint[]) ${header} as $$
insert into ${schema}.pending_recalculations (person_id, occasion_id)
select distinct k.person_id, k.occasion_id
  from unnest($1, $2) as k (person_id, occasion_id)
 where k.person_id is not null and k.occasion_id is not null
$$`);
    this.addSql(`create function mark_all_budgets() ${header} as $$
insert into ${schema}.pending_recalculations (everything) values (true)
$$`);
    for (const [name, signature] of FUNCTIONS) {
      this.addSql(`revoke execute on function ${signature} from public`);
      this.addSql(remember('function', name));
    }
  }

  override async down(): Promise<void> {
    const callers = (await this.execute(
      `select p.oid::regprocedure::text as caller from pg_proc p
        where p.prosrc ~ '\\mmark_(budgets?|all_budgets)\\M'
          and not exists (select from gift_budgets_objects m
                           where m.kind = 'function' and m.name = p.proname)
        order by 1`,
    )) as { caller: string }[];
    if (callers.length > 0) {
      throw new Error(
        `mark_budget, mark_budgets and mark_all_budgets cannot be dropped while other functions call ` +
          `them: ${callers.map(({ caller }) => caller).join(', ')}. Drop those first, with their triggers`,
      );
    }
    this.addSql(`set local lock_timeout = '50ms'`);
    for (const [name, signature] of FUNCTIONS.toReversed()) {
      this.addSql(`drop function ${signature}`);
      this.addSql(forget('function', name));
    }
  }
}

const FUNCTIONS = [
  ['mark_budget', 'mark_budget(bigint, bigint)'],
  ['mark_budgets', 'mark_budgets(bigint[], bigint[])'],
  ['mark_all_budgets', 'mark_all_budgets()'],
] as const;
