import type { Database } from '../../src/database.ts';

/** Everything that the database's catalog knows of its tables, views and functions, a line each. */
export async function catalog({ pool }: Pick<Database, 'pool'>): Promise<string[]> {
  const { rows } = await pool.query<{ line: string }>(
    `with ours as (
       select oid, relname, relkind, reloptions from pg_class
        where relnamespace = 'public'::regnamespace and relname not like 'gift_budgets_migrations%'
     )
     select concat_ws(' ', relkind, relname, reloptions::text) as line from ours
     union all
     select concat_ws(' ', relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
                      pg_get_expr(adbin, adrelid))
       from ours join pg_attribute a on a.attrelid = ours.oid
       left join pg_attrdef d on (adrelid, adnum) = (attrelid, attnum)
      where attnum > 0 and not attisdropped
     union all
     select concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(c.oid), convalidated)
       from pg_constraint c join ours on ours.oid = conrelid
     union all
     select pg_get_indexdef(indexrelid) from pg_index join ours on ours.oid = indrelid
     union all
     select pg_get_viewdef(oid) from ours where relkind = 'v'
     union all
     select pg_get_triggerdef(t.oid) from pg_trigger t join ours on ours.oid = tgrelid
      where not tgisinternal
     union all
     select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
      order by 1`,
  );
  return rows.map(({ line }) => line);
}
