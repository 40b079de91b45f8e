import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { onTestFinished } from 'vitest';
import type { Pair } from '../../../src/events/contract.ts';

/** Sends what the writers changed, as an upstream does after its commit. */
export type Send = (pairs: readonly Pair[]) => Promise<unknown>;

export interface WritersOptions {
  /** How many write at the same time, each on a connection of its own. */
  readonly writers?: number;
  /** The mean pause between two transactions of a writer, in milliseconds. */
  readonly pauseMs?: number;
  /** How a transaction begins: another isolation level, say. */
  readonly begin?: string;
  /** How long a transaction stays open behind its changes, at random up to this. */
  readonly holdMsMax?: number;
  readonly send?: Send;
}

/** What writers did; still growing while they write. */
export interface Written {
  /** Committed changes of assignments; an unanswered commit may have been one more. */
  readonly changes: number;
  /** Calls of `send` that succeeded. */
  readonly events: number;
  /** Transactions that failed, and were left or tried again with other changes. */
  readonly errors: number;
}

export interface Writers extends Written {
  /** Ends them after the transactions under way. */
  stop(): Promise<Written>;
}

const ROLLED_BACK = 0.1;
const BULK = 0.1;
const BULK_PAIRS_MAX = 20;
const RECONNECT_MS = 50;

/**
 * Changes the assignments of the pairs all along: assigns, reprices, moves, unassigns, single rows
 * and small bulks, some rolled back. A lost connection is made again, and a failed transaction is
 * followed by another one: whether it was committed or not, the oracle reads the tables.
 *
 * Called in a test, whose end ends them too.
 */
export function startWriters(
  { upstream }: { readonly upstream: { readonly url: string } },
  pairs: readonly Pair[],
  options: WritersOptions = {},
): Writers {
  const written = { changes: 0, events: 0, errors: 0 };
  const stopping = new AbortController();
  const running = Array.from({ length: options.writers ?? 4 }, async () => {
    while (!stopping.signal.aborted) {
      await writeUntilLost(upstream.url, pairs, options, written, stopping.signal);
    }
  });
  const stop = async (): Promise<Written> => {
    stopping.abort();
    await Promise.all(running);
    return written;
  };
  onTestFinished(async () => void (await stop()));
  return {
    get changes() {
      return written.changes;
    },
    get events() {
      return written.events;
    },
    get errors() {
      return written.errors;
    },
    stop,
  };
}

async function writeUntilLost(
  url: string,
  pairs: readonly Pair[],
  { pauseMs = 15, begin = 'begin', holdMsMax = 0, send }: WritersOptions,
  written: { changes: number; events: number; errors: number },
  signal: AbortSignal,
): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'writer',
    connectionTimeoutMillis: 5_000,
    query_timeout: 30_000,
  });
  client.on('error', () => {});
  try {
    await client.connect();
    while (!signal.aborted) {
      const touched: Pair[] = [];
      await client.query(begin);
      const steps = oneOf([1, 1, 1, 2, 3]);
      for (let step = 0; step < steps; step += 1) touched.push(...(await change(client, pairs)));
      if (holdMsMax > 0) await sleep(Math.random() * holdMsMax);
      const keep = Math.random() >= ROLLED_BACK;
      await client.query(keep ? 'commit' : 'rollback');
      if (keep) written.changes += steps;
      // Upstreams that roll back send, if at all, an event for nothing.
      if (send && touched.length > 0) {
        await send(touched).then(
          () => (written.events += 1),
          () => {},
        );
      }
      await sleep(Math.random() * 2 * pauseMs);
    }
  } catch {
    written.errors += 1;
    await sleep(RECONNECT_MS);
  } finally {
    // Of a connection that hangs, no farewell can be awaited.
    await Promise.race([client.end().catch(() => {}), sleep(1_000)]);
  }
}

/** One change; returns the pairs that it may have touched. */
async function change(client: pg.Client, pairs: readonly Pair[]): Promise<Pair[]> {
  const pair = oneOf(pairs);
  const bulk = Math.random() < BULK ? someOf(pairs) : [pair];
  const keys = [bulk.map(({ personId }) => personId), bulk.map(({ occasionId }) => occasionId)];
  const amount = (Math.floor(Math.random() * 25_000) - 5_000) / 100;
  // Rows that another writer holds are left to it, so that writers do not deadlock each other.
  const picked = `select g.id
       from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)
      cross join lateral (
        select id from gift_persons g
         where g.person_id = k.person_id and g.occasion_id = k.occasion_id
         order by id limit 1 for update skip locked) as g`;
  switch (oneOf(['assign', 'reprice', 'move', 'unassign'])) {
    case 'assign':
      await client.query(
        `insert into gift_persons (gift_id, person_id, occasion_id, amount)
         select (select min(id) from gifts), k.person_id, k.occasion_id, $3::numeric(10,2)
           from unnest($1::bigint[], $2::bigint[]) as k (person_id, occasion_id)`,
        [...keys, amount],
      );
      return bulk;
    case 'reprice':
      await client.query(
        `update gift_persons set amount = $3::numeric(10,2) where id in (${picked})`,
        [...keys, Math.random() < 0.1 ? null : amount],
      );
      return bulk;
    case 'move': {
      const target = oneOf(pairs);
      await client.query(
        `update gift_persons set person_id = $3, occasion_id = $4 where id in (${picked})`,
        [...keys, target.personId, target.occasionId],
      );
      return [...bulk, target];
    }
    default:
      await client.query(`delete from gift_persons where id in (${picked})`, keys);
      return bulk;
  }
}

export function oneOf<T>(values: readonly T[]): T {
  return values[Math.floor(Math.random() * values.length)]!;
}

function someOf(pairs: readonly Pair[]): Pair[] {
  return Array.from({ length: 1 + Math.floor(Math.random() * BULK_PAIRS_MAX) }, () => oneOf(pairs));
}
