import pg from 'pg';
import { migrate, openDatabase } from '../../src/database.ts';
import { type Grantee, GRANTEES, grantsSql } from '../../src/grants.ts';
import { prepareQueue } from '../../src/queue.ts';

/** The roles of a test run, made by what `gift-budgets grants` prints. */
export interface TestRoles {
  readonly names: Readonly<Record<Grantee, string>>;
  readonly password: string;
}

/** Roles are the server's, not a database's: each run has its own. */
export function nameRoles(prefix: string): TestRoles {
  const names = { migrator: '', reader: '', worker: '', upstream: '' };
  for (const grantee of GRANTEES) names[grantee] = `${prefix}_${grantee}`;
  return { names, password: crypto.randomUUID() };
}

/**
 * Makes the schema and the queue as a deployer does: the migrator makes them, and each role is
 * granted what it needs.
 */
export async function deploy(ownerUrl: string, roles: TestRoles): Promise<void> {
  await execute(ownerUrl, `${grants(roles, ['migrator'])}; ${setPasswords(roles, ['migrator'])}`);
  const url = urlAs(ownerUrl, roles, 'migrator');
  const database = await openDatabase(url);
  await migrate(database);
  await database.close();
  await prepareQueue({ backend: 'postgres', url });
  await execute(ownerUrl, `${grants(roles, GRANTEES)}; ${setPasswords(roles, GRANTEES)}`);
}

/** The same database for somebody else. */
export function urlAs(ownerUrl: string, { names, password }: TestRoles, grantee: Grantee): string {
  const url = new URL(ownerUrl);
  [url.username, url.password] = [names[grantee], password];
  return url.href;
}

/** Drops the roles, which fails where a database still grants them anything. */
export async function dropRoles(url: string, { names }: TestRoles): Promise<void> {
  await execute(url, `drop role ${Object.values(names).join(', ')}`);
}

function grants({ names }: TestRoles, grantees: readonly Grantee[]): string {
  const schemas = { schema: 'public', queueSchema: 'bullmq', owner: undefined };
  return grantsSql(grantees, { roles: names, ...schemas, sendsEvents: true });
}

function setPasswords({ names, password }: TestRoles, grantees: readonly Grantee[]): string {
  return grantees.map((who) => `alter role ${names[who]} password '${password}'`).join(';');
}

async function execute(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
