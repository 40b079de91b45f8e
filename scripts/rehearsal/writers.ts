import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { OthersDatabase } from './others-database.ts';

/** What the writers have done so far. */
export interface Written {
  transactions: number;
  slowestMs: number;
  readonly failures: string[];
}

export interface Writers {
  readonly written: Written;
  stop(): Promise<void>;
}

/** Between two transactions of a writer, so that there is a processor left to migrate with. */
const PAUSE_MS = 5;

/** How long the slow ones among them leave a transaction open. */
const SLOW_MS = 150;

/**
 * Programs of others that know nothing of us: each changes assignments and budgets in transactions of
 * its own, in either order, so that a lock on one table meets a wait for the other. One in four leaves
 * its transactions open for a while.
 */
export async function startWriters(
  url: string,
  count: number,
  size: OthersDatabase,
): Promise<Writers> {
  const written: Written = { transactions: 0, slowestMs: 0, failures: [] };
  const stopping = new AbortController();
  const clients = await Promise.all(
    Array.from({ length: count }, async () => {
      const client = new pg.Client({ connectionString: url, application_name: 'writer' });
      client.on('error', (error) => written.failures.push(error.message));
      await client.connect();
      return client;
    }),
  );
  const loops = clients.map(async (client, place) => {
    const holdMs = place % 4 === 3 ? SLOW_MS : 0;
    while (!stopping.signal.aborted) {
      await write(client, size, holdMs, written);
      await sleep(PAUSE_MS);
    }
  });
  return {
    written,
    async stop() {
      stopping.abort();
      await Promise.all(loops);
      await Promise.all(clients.map(async (client) => await client.end()));
    },
  };
}

async function write(
  client: pg.Client,
  size: OthersDatabase,
  holdMs: number,
  written: Written,
): Promise<void> {
  const statements = shuffled([
    `insert into gift_persons (gift_id, person_id) values (1, ${somePerson(size)})`,
    `update gift_persons set role = 'giver' where id = ${upTo(size.assignments)}`,
    `update person_occasions set role = 'host' where id = ${upTo(size.budgets)}`,
    `delete from gift_persons where id = ${upTo(size.assignments)}`,
    `insert into person_occasions (person_id, occasion_id) values (${somePerson(size)}, ${upTo(20)})
       on conflict do nothing`,
  ]).slice(0, 2);
  try {
    for (const statement of ['begin', ...statements, 'commit']) {
      if (statement === 'commit' && holdMs > 0) await sleep(holdMs);
      const startedAt = performance.now();
      await client.query(statement);
      written.slowestMs = Math.max(written.slowestMs, performance.now() - startedAt);
    }
    written.transactions += 1;
  } catch (error) {
    written.failures.push((error as Error).message);
    await client.query('rollback');
  }
}

function somePerson({ budgets }: OthersDatabase): number {
  return upTo(Math.max(1, Math.floor(budgets / 20)));
}

function upTo(max: number): number {
  return 1 + Math.floor(Math.random() * max);
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
