import type { Queryable } from '../../src/database.ts';

/** The tables that somebody may have before us. */
export const OTHERS_TABLES = [
  'persons',
  'occasions',
  'person_occasions',
  'gifts',
  'gift_persons',
] as const;
export type OthersTable = (typeof OTHERS_TABLES)[number];

/**
 * Makes some of the tables as somebody else would: keys of 32 bits, a surrogate id beside the unique pair,
 * a role, none of our columns; with a row in each, and with the table of another migration tool.
 */
export async function makeOthersTables(
  db: Queryable,
  tables: readonly OthersTable[],
): Promise<void> {
  const has = (table: OthersTable): boolean => tables.includes(table);
  const references = (table: OthersTable): string => (has(table) ? `references ${table}` : '');
  const definitions: Record<OthersTable, string> = {
    persons: `create table persons (id serial primary key, full_name varchar(80) not null default 'Ada')`,
    occasions: `create table occasions (id serial primary key, title text not null default 'Christmas')`,
    person_occasions: `create table person_occasions (
      id serial primary key,
      person_id int not null ${references('persons')},
      occasion_id int not null ${references('occasions')},
      role text not null default 'guest',
      unique (person_id, occasion_id)
    )`,
    gifts: `create table gifts (id serial primary key, sku text not null default 'book')`,
    gift_persons: `create table gift_persons (
      id serial primary key,
      gift_id int not null ${references('gifts')},
      person_id int not null ${references('persons')},
      role text not null default 'receiver'
    )`,
  };
  const rows: Record<OthersTable, string> = {
    persons: `insert into persons default values`,
    occasions: `insert into occasions default values`,
    person_occasions: `insert into person_occasions (person_id, occasion_id) values (1, 1)`,
    gifts: `insert into gifts default values`,
    gift_persons: `insert into gift_persons (gift_id, person_id) values (1, 1)`,
  };
  for (const table of OTHERS_TABLES.filter(has)) {
    await db.query(definitions[table]);
    await db.query(rows[table]);
  }
  await db.query(
    `create table mikro_orm_migrations (id serial primary key, name varchar(255),
                                        executed_at timestamptz default current_timestamp);
     insert into mikro_orm_migrations (name) values ('Migration20990101000000_theirs')`,
  );
}
