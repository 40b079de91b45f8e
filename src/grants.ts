import pg from 'pg';
import { MIGRATIONS_TABLE } from './database.ts';

/** Whom the grants are for. */
export const GRANTEES = ['migrator', 'reader', 'worker', 'upstream'] as const;
export type Grantee = (typeof GRANTEES)[number];

export interface GrantsOptions {
  /** What each role is called. */
  readonly roles: Readonly<Record<Grantee, string>>;
  /** The schema of the tables. */
  readonly schema: string;
  /** The schema of the queue, where it lives in PostgreSQL. */
  readonly queueSchema: string;
  /** Whether the upstream adds gift events to a queue in PostgreSQL. */
  readonly sendsEvents: boolean;
  /** Who owns the tables that were there before; nobody else may alter them. */
  readonly owner: string | undefined;
}

/** What the reader and the worker read; the notes of a budget are nothing to the worker. */
const READ = [
  ['persons', 'id, name'],
  ['occasions', 'id, name'],
  ['gifts', 'id, name'],
  ['person_occasions', 'person_id, occasion_id, budget_amount, budget_spent, budget_currency'],
] as const;
const NOTES = 'select (budget_notes)';
const READ_WHOLE = [
  // Maybe of others, with a key and columns of their own, or none.
  'gift_persons',
  'budget_contributions',
  'budget_status',
  'pending_recalculations',
  'recalculation_failures',
  'budget_sweeps',
  'budget_sweep_findings',
  MIGRATIONS_TABLE,
];

const READING: readonly (readonly [rights: string, table: string])[] = [
  ...READ.map(([table, columns]) => [`select (${columns})`, table] as const),
  ...READ_WHOLE.map((table) => ['select', table] as const),
];

/**
 * What the worker writes. FOR UPDATE and FOR NO KEY UPDATE need the right to update a column, and
 * who wants to know who holds a row reads its xmax. Findings go with their sweep by a cascade, which
 * has the rights of the owner.
 */
const WORK = [
  ['select (xmax), update (budget_spent)', 'person_occasions'],
  ['insert, delete, update (person_id, occasion_id)', 'pending_recalculations'],
  ['insert, delete, update (reason, total, attempts, last_failed_at)', 'recalculation_failures'],
  [
    'insert, delete, update (finished_at, person_id, occasion_id, checked, drifted, repaired, failed)',
    'budget_sweeps',
  ],
  ['insert', 'budget_sweep_findings'],
] as const;

const WORKER: readonly (readonly [rights: string, table: string])[] = [...READING, ...WORK];

/** A privilege that a role needs on a table; on the named columns, or without any on the whole of it. */
export interface Right {
  readonly table: string;
  readonly privilege: string;
  readonly columns: readonly string[];
}

/** All that a worker needs of the tables, one by one. */
export function workerRights(): Right[] {
  return WORKER.flatMap(([rights, table]) =>
    Array.from(rights.matchAll(/(\w+)(?: \(([^)]*)\))?/g), ([, privilege, columns]) => ({
      table,
      privilege: privilege!,
      columns: columns?.split(', ') ?? [],
    })),
  );
}

/** The statements that let a role do what a worker does with these tables. */
export function workerGrants(role: string, schema: string, tables: readonly string[]): string[] {
  return WORKER.filter(([, table]) => tables.includes(table)).map(([rights, table]) =>
    grant(rights, table, role, schema),
  );
}

/** What an upstream writes: all but the stored total. Of marks it knows nothing, the triggers do. */
const PLAN = 'person_id, occasion_id, budget_amount, budget_currency, budget_notes';
const UPSTREAM = [
  ['select, insert, update, delete', 'persons'],
  ['select, insert, update, delete', 'occasions'],
  ['select, insert, update, delete', 'gifts'],
  ['select, insert, update, delete', 'gift_persons'],
  [`select, delete, insert (${PLAN}), update (${PLAN})`, 'person_occasions'],
] as const;

/**
 * The SQL that makes the roles and gives each what it needs, and no more. It may be run again: a role
 * that is there stays as it is, and what was granted already stays granted.
 */
export function grantsSql(grantees: readonly Grantee[], options: GrantsOptions): string {
  const parts = GRANTEES.filter((grantee) => grantees.includes(grantee));
  return parts.map((grantee) => PARTS[grantee](options)).join('\n');
}

const PARTS: Readonly<Record<Grantee, (options: GrantsOptions) => string>> = {
  migrator({ roles, schema, owner }) {
    const role = pg.escapeIdentifier(roles.migrator);
    return [
      '-- The migrator makes the tables, and owns what it makes. To create on the database is to create',
      '-- the schema of the queue, where that lives in PostgreSQL.',
      createRole(roles.migrator),
      onDatabase('connect, create', roles.migrator),
      ...(schema === 'public'
        ? []
        : [`create schema if not exists ${pg.escapeIdentifier(schema)};`]),
      `grant usage, create on schema ${pg.escapeIdentifier(schema)} to ${role};`,
      ...(owner === undefined ? [] : [`grant ${pg.escapeIdentifier(owner)} to ${role};`]),
      ...searchPath(roles.migrator, schema),
      '',
    ].join('\n');
  },

  reader({ roles, schema }) {
    return [
      '-- The reader reads budgets, and changes nothing.',
      ...begin('connect', roles.reader, schema),
      ...reading(roles.reader, schema),
      grant(NOTES, 'person_occasions', roles.reader, schema),
      '',
    ].join('\n');
  },

  worker({ roles, schema, queueSchema }) {
    return [
      '-- The worker reads what it sums, stores totals, and does what it likes with marks, failures',
      '-- and sweeps.',
      ...begin('connect', roles.worker, schema),
      ...WORKER.map(([rights, table]) => grant(rights, table, roles.worker, schema)),
      ...queue(roles.worker, queueSchema),
      '',
    ].join('\n');
  },

  upstream({ roles, schema, queueSchema, sendsEvents }) {
    return [
      '-- The upstream writes gifts and plans budgets, and has no right on what is ours: its changes are',
      '-- marked by triggers, with the rights of the migrator. "gift-budgets import" uses temporary tables.',
      ...begin('connect, temporary', roles.upstream, schema),
      ...UPSTREAM.map(([rights, table]) => grant(rights, table, roles.upstream, schema)),
      ...(sendsEvents ? queue(roles.upstream, queueSchema) : []),
      '',
    ].join('\n');
  },
};

function begin(rights: string, role: string, schema: string): string[] {
  return [
    createRole(role),
    onDatabase(rights, role),
    `grant usage on schema ${pg.escapeIdentifier(schema)} to ${pg.escapeIdentifier(role)};`,
    ...searchPath(role, schema),
  ];
}

function reading(role: string, schema: string): string[] {
  return READING.map(([rights, table]) => grant(rights, table, role, schema));
}

/**
 * BullMQ's functions run with the rights of who calls them, so adding a job needs as much as serving
 * one, and many at once temporary tables. Only where its schema is: with the queue in Redis there is none.
 */
function queue(role: string, queueSchema: string): string[] {
  const [to, schema] = [pg.escapeIdentifier(role), pg.escapeIdentifier(queueSchema)];
  return [
    block(`  if to_regnamespace(${pg.escapeLiteral(schema)}) is not null then
    execute format('grant temporary on database %I to %I', current_database(), ${pg.escapeLiteral(role)});
    grant usage on schema ${schema} to ${to};
    grant select, insert, update, delete on all tables in schema ${schema} to ${to};
    revoke insert, update, delete on ${schema}.migration from ${to};
    grant usage, select, update on all sequences in schema ${schema} to ${to};
  end if;`),
  ];
}

function grant(rights: string, table: string, role: string, schema: string): string {
  return `grant ${rights} on ${pg.escapeIdentifier(schema)}.${table} to ${pg.escapeIdentifier(role)};`;
}

function createRole(role: string): string {
  return block(`  if not exists (select from pg_roles where rolname = ${pg.escapeLiteral(role)}) then
    create role ${pg.escapeIdentifier(role)} login;
  end if;`);
}

/** The database is the one that the SQL is run in, whatever it is called. */
function onDatabase(rights: string, role: string): string {
  return block(
    `  execute format('grant ${rights} on database %I to %I', current_database(), ${pg.escapeLiteral(role)});`,
  );
}

/** So that a connection finds the tables; a pooler lets no other way to say it pass. */
function searchPath(role: string, schema: string): string[] {
  if (schema === 'public') return [];
  const names = [role, schema].map((name) => pg.escapeLiteral(name)).join(', ');
  return [
    block(
      `  execute format('alter role %2$I in database %1$I set search_path = %3$I', current_database(), ${names});`,
    ),
  ];
}

/** The quotation mark is one that no name in it has. */
function block(body: string): string {
  let tag = '$$';
  while (body.includes(tag)) tag = `$q${tag.slice(1)}`;
  return `do ${tag} begin\n${body}\nend ${tag};`;
}
