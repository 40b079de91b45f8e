// A separate upstream service of the demo: changes assignments with plain SQL, as somebody else's
// program would, and sends gift events after the commit, but for every fourth change, which only
// its mark tells of.
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { GiftEventClient, type PairInput } from '../events/client.ts';
import type { QueueConnection } from '../queue.ts';

/** What the demo hands to this process. */
export interface UpstreamTask {
  readonly databaseUrl: string;
  readonly queue: QueueConnection;
  readonly seconds: number;
}

const PAUSE_MS = 40;
const EVENT_LEFT_OUT_EVERY = 4;

process.stdin.on('end', () => process.exit(0)).resume(); // The demo was interrupted or killed.

const task = JSON.parse(process.argv[2]!) as UpstreamTask;
const db = new pg.Client({ connectionString: task.databaseUrl, application_name: 'upstream' });
db.on('error', () => process.exit(0)); // The server went with the demo.
await db.connect();
const events = new GiftEventClient(task.queue);

let changes = 0;
const end = performance.now() + task.seconds * 1_000;
const ways = [assign, reprice, move, unassign, assign];
while (performance.now() < end) {
  const change = await ways[changes % ways.length]!();
  changes += 1;
  if (change && changes % EVENT_LEFT_OUT_EVERY !== 0) await change.send();
  await sleep(PAUSE_MS * (0.5 + Math.random()));
}
await events.close();
await db.end();
process.stdout.write(`${changes}\n`);
process.stdin.destroy();

/** A committed change; `send` tells of it. */
interface Change {
  send(): Promise<unknown>;
}

async function assign(): Promise<Change> {
  const { rows } = await db.query<Pair>(
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select (select id from gifts order by random() limit 1), person_id, occasion_id,
            round((2 + random() * 18)::numeric, 2)
       from person_occasions order by random() limit 1
     returning person_id, occasion_id`,
  );
  return { send: () => events.giftAssigned(rows.map(toPair)) };
}

async function reprice(): Promise<Change> {
  const { rows } = await db.query<Pair>(
    `update gift_persons set amount = round((amount * (0.8 + random() * 0.4)::numeric), 2)
      where id in (select id from gift_persons where amount > 0 and occasion_id is not null
                    order by random() limit 1)
     returning person_id, occasion_id`,
  );
  return { send: () => events.giftRepriced(rows.map(toPair)) };
}

async function move(): Promise<Change> {
  const { rows } = await db.query<Pair & { old_person_id: string; old_occasion_id: string }>(
    `update gift_persons g
        set person_id = b.person_id, occasion_id = b.occasion_id
       from (select id, person_id as old_person_id, occasion_id as old_occasion_id
               from gift_persons where occasion_id is not null order by random() limit 1) old,
            (select person_id, occasion_id from person_occasions order by random() limit 1) b
      where g.id = old.id
     returning g.person_id, g.occasion_id, old.old_person_id, old.old_occasion_id`,
  );
  const from = rows.map((row) => ({
    personId: row.old_person_id,
    occasionId: row.old_occasion_id,
  }));
  return { send: () => events.giftMoved(from, rows.map(toPair)) };
}

async function unassign(): Promise<Change> {
  const { rows } = await db.query<Pair>(
    `delete from gift_persons
      where id in (select id from gift_persons where occasion_id is not null
                    order by random() limit 1)
     returning person_id, occasion_id`,
  );
  return { send: () => events.giftUnassigned(rows.map(toPair)) };
}

interface Pair {
  readonly person_id: string;
  readonly occasion_id: string;
}

function toPair({ person_id, occasion_id }: Pair): PairInput {
  return { personId: person_id, occasionId: occasion_id };
}
