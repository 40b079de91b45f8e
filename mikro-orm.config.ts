import { loadConfig } from './src/config.ts';
import { mikroOrmOptions } from './src/database.ts';

/** For the MikroORM CLI (`mikro-orm migration:up`), which has no embedded server to fall back on. */
export default function config() {
  const { databaseUrl, pooler } = loadConfig(process.env);
  if (databaseUrl === undefined) {
    throw new Error(
      'DATABASE_URL is not set: it names the PostgreSQL database to migrate, ' +
        'e.g. DATABASE_URL=postgres://user:password@127.0.0.1:5432/gift_budgets',
    );
  }
  if (pooler === 'transaction') {
    throw new Error(
      'GIFT_BUDGETS_POOLER=transaction says that DATABASE_URL leads to a pooler: migrations need a ' +
        'session of their own, so name the server itself, and unset it',
    );
  }
  return mikroOrmOptions(databaseUrl, { poolMax: 2, tellMigrations: true });
}
