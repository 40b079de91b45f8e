import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { tableLocks } from '../../src/migrating/live-migration.ts';

/** Whom the migration's backends blocked, and for how long at most, and what they had locked. */
export interface Blocked {
  longestMs: number;
  /** What the migration ran while that was so. */
  by: string;
  waits: number;
  samples: number;
}

export interface BlockedWatch {
  readonly blocked: Blocked;
  /** The locks that were seen while a statement ran. */
  locksOf(statement: string): string[];
  stop(): Promise<void>;
}

const SAMPLE_EVERY_MS = 5;

/**
 * Looks every few milliseconds for backends that wait for the migration's, be it for a lock that it holds
 * or because they stand behind it in the queue for one. PostgreSQL says itself since when they wait.
 *
 * @param application the application_name of the migration.
 */
export async function watchBlocked(url: string, application: string): Promise<BlockedWatch> {
  const client = new pg.Client({ connectionString: url, application_name: 'rehearsal' });
  await client.connect();
  const blocked: Blocked = { longestMs: 0, by: '', waits: 0, samples: 0 };
  const locks = new Map<string, Set<string>>();
  const waiting = new Set<string>();
  const stopping = new AbortController();
  const loop = (async () => {
    while (!stopping.signal.aborted) {
      const { rows } = await client.query<Sample>(SAMPLE, [application]);
      blocked.samples += 1;
      for (const { key, ms, by } of rows[0]!.waits) {
        if (!waiting.has(key)) blocked.waits += 1;
        waiting.add(key);
        if (ms > blocked.longestMs) Object.assign(blocked, { longestMs: ms, by });
      }
      for (const { by, held } of rows[0]!.locks) {
        locks.set(by, (locks.get(by) ?? new Set()).union(new Set(held)));
      }
      await sleep(SAMPLE_EVERY_MS);
    }
  })();
  return {
    blocked,
    locksOf: (statement) => [...(locks.get(statement) ?? [])],
    async stop() {
      stopping.abort();
      await loop;
      await client.end();
    },
  };
}

interface Sample {
  readonly waits: readonly { readonly key: string; readonly ms: number; readonly by: string }[];
  readonly locks: readonly { readonly by: string; readonly held: readonly string[] }[];
}

const SAMPLE = `
  with ours as materialized (
    select pid, query from pg_stat_activity
     where application_name = $1 and datname = current_database()
  )
  select coalesce((
           select json_agg(json_build_object(
                    'key', l.pid || ' ' || l.waitstart,
                    'ms', extract(epoch from clock_timestamp() - l.waitstart) * 1000,
                    'by', m.query))
             from pg_locks l
             join ours m on m.pid = any (pg_blocking_pids(l.pid))
            where not l.granted and l.waitstart is not null and l.pid not in (select pid from ours)
         ), '[]') as waits,
         coalesce((
           select json_agg(json_build_object('by', ours.query, 'held', (${tableLocks('ours.pid')})))
             from ours
         ), '[]') as locks`;
