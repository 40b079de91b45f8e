import { findByNameOrId, suggestNames } from '../budgets/named-budgets.ts';
import type { Queryable } from '../database.ts';
import type { Id } from '../events/contract.ts';
import { CommandError } from './context.ts';

/** @throws {CommandError} with a hint at names that begin like it, where nobody is found. */
export async function findNamed(
  db: Queryable,
  table: 'persons' | 'occasions',
  nameOrId: string,
): Promise<Id[]> {
  const ids = await findByNameOrId(db, table, nameOrId);
  if (ids.length > 0) return ids;
  const names = (await suggestNames(db, table, nameOrId)).map((name) => `"${name}"`);
  const hint = names.length > 0 ? `; did you mean ${names.join(' or ')}?` : '';
  const kind = table === 'persons' ? 'person' : 'occasion';
  throw new CommandError(`no ${kind} has the name or the id "${nameOrId}"${hint}`);
}
