import type pg from 'pg';
import { fill, mustBeRight } from './data.ts';
import { measureAlternating, type Outcome, rateTable, ratioOf, type Side } from './measure.ts';
import { withPostgres, withRedis } from './servers.ts';
import { startOurs } from './worker-process.ts';
import { insertInLoops, setMarking, tidy, untilNothingIsPending } from './writers.ts';

const ROUNDS = 15;
const WRITERS = 16;
const WRITE_MS = 500;
const PAIR = { personId: '1', occasionId: '1' };

/** What the pair has when a round begins: what is hot has many. */
const ASSIGNMENTS = 1_000;

/** Triggers as people write them, that keep the total in the writer's own transaction. */
const TRIGGERS = {
  'increment trigger': `update person_occasions set budget_spent = budget_spent + new.amount
    where person_id = new.person_id and occasion_id = new.occasion_id`,
  'sum trigger': `update person_occasions set budget_spent = (
      select sum(amount) from gift_persons
       where person_id = new.person_id and occasion_id = new.occasion_id)
    where person_id = new.person_id and occasion_id = new.occasion_id`,
};

/** 16 writers on one pair: marks with a worker running, against triggers that keep the total. */
export async function hot(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async ({ pool, url }) => {
        await fill(pool, { pairs: 100, assignmentsPerPair: ASSIGNMENTS });
        const worker = await startOurs(url, { backend: 'redis', url: redisUrl });
        try {
          const sides = Object.entries(TRIGGERS).map(([name, body]) => keptBy(pool, name, body));
          const [marks, increment, sum, none] = await measureAlternating(
            [markedAndRecalculated(pool), ...sides, unkept(pool)],
            ROUNDS,
          );
          await untilNothingIsPending(pool);
          await mustBeRight(pool);
          return {
            table: rateTable([marks!, increment!, sum!, none!], 'assignments/s'),
            figures: [
              { key: 'vs_increment_trigger', value: ratioOf(marks!, increment!), atLeast: 5 },
              { key: 'vs_sum_trigger', value: ratioOf(marks!, sum!), atLeast: 8 },
              // What these writers can reach at all, with nobody who keeps a total.
              { key: 'none_vs_increment_trigger', value: ratioOf(none!, increment!) },
              { key: 'none_vs_sum_trigger', value: ratioOf(none!, sum!) },
            ],
          };
        } finally {
          await worker.stop();
        }
      }),
  );
}

function markedAndRecalculated(pool: pg.Pool): Side {
  return {
    name: 'marks, with a worker',
    async prepare() {
      await pool.query('drop trigger if exists keep_total on gift_persons');
      await startOver(pool);
      await setMarking(pool, true);
    },
    run: async () => await insertInLoops(pool, WRITERS, WRITE_MS, PAIR),
  };
}

function keptBy(pool: pg.Pool, name: string, body: string): Side {
  return {
    name,
    async prepare() {
      await startOver(pool);
      await setMarking(pool, false);
      await pool.query(
        `create or replace function keep_total() returns trigger language plpgsql as
         $$ begin ${body}; return null; end $$`,
      );
      await pool.query(
        `create or replace trigger keep_total after insert on gift_persons
         for each row execute function keep_total()`,
      );
    },
    run: async () => await insertInLoops(pool, WRITERS, WRITE_MS, PAIR),
  };
}

function unkept(pool: pg.Pool): Side {
  return {
    name: 'no total kept at all',
    async prepare() {
      await pool.query('drop trigger if exists keep_total on gift_persons');
      await startOver(pool);
    },
    run: async () => await insertInLoops(pool, WRITERS, WRITE_MS, PAIR),
  };
}

/** Each round begins with the same assignments of the pair, or a sum would cost more each time. */
async function startOver(pool: pg.Pool): Promise<void> {
  await untilNothingIsPending(pool);
  await setMarking(pool, false);
  await pool.query(
    `delete from gift_persons
      where person_id = $1 and occasion_id = $2 and id not in (
        select id from gift_persons
         where person_id = $1 and occasion_id = $2 order by id limit $3)`,
    [PAIR.personId, PAIR.occasionId, ASSIGNMENTS],
  );
  await tidy(pool);
}
