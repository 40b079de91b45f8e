import pg from 'pg';
import { openDatabase, migrate } from '../../src/database.ts';
const base = 'postgres://postgres@127.0.0.1:55477';
export type TestDatabase = Awaited<ReturnType<typeof createTestDatabase>>;
export async function createTestDatabase() {
  const name = `t_${process.pid}_${Math.floor(Math.random() * 1e9)}`;
  const admin = new pg.Client(`${base}/postgres`);
  await admin.connect();
  await admin.query(`create database ${name}`);
  const database = await openDatabase(`${base}/${name}`);
  await migrate(database);
  return { ...database, url: `${base}/${name}`, async close() { await database.close(); await admin.query(`drop database ${name} with (force)`); await admin.end(); } };
}
