/**
 * The table gift_budgets_objects says what the migrations made, so that undoing them removes that and
 * nothing else: on a database that others made, a table, a column or an index of the same name may have
 * been there before. An entry commits with what it tells of, or before it where that is built slowly.
 */
export type MadeKind =
  | 'column'
  | 'constraint'
  | 'function'
  | 'index'
  | 'setting'
  | 'table'
  | 'trigger'
  | 'view';

/** @param table what it belongs to; for a table, a view or a function, nothing. */
export function remember(kind: MadeKind, name: string, table = ''): string {
  return `insert into gift_budgets_objects (kind, on_table, name)
    values ('${kind}', '${table}', '${name}') on conflict do nothing`;
}

export function forget(kind: MadeKind, name: string, table = ''): string {
  return `delete from gift_budgets_objects
    where kind = '${kind}' and on_table = '${table}' and name = '${name}'`;
}

/** Forgets a table, with all that was made on it. */
export function forgetTable(name: string): string {
  return `delete from gift_budgets_objects
    where on_table = '${name}' or (kind = 'table' and name = '${name}')`;
}
