import type pg from 'pg';
import type { Pair } from '../src/events/contract.ts';
import { fill, GIFTS, mustBeRight, withoutMarks } from './data.ts';
import {
  type Measured,
  measureAlternating,
  type Outcome,
  rateTable,
  ratioOf,
  type Side,
} from './measure.ts';
import { withPostgres, withRedis } from './servers.ts';
import { startOurs } from './worker-process.ts';
import { insertInLoops, setMarking, tidy, untilNothingIsPending } from './writers.ts';

const ROUNDS = 15;
const WRITERS = 16;
const WRITE_MS = 500;

/**
 * What a pair has when a round begins. What is hot has many: at the rate of these writers a pair has
 * the second number after three seconds.
 */
const SIZES = { '1,000': 1_000, '10,000': 10_000 };

interface HotPair extends Pair {
  readonly assignments: number;
}

/** Triggers as people write them, that keep the total in the writer's own transaction. */
const TRIGGERS = {
  'increment trigger': `update person_occasions set budget_spent = budget_spent + new.amount
    where person_id = new.person_id and occasion_id = new.occasion_id`,
  'sum trigger': `update person_occasions set budget_spent = (
      select sum(amount) from gift_persons
       where person_id = new.person_id and occasion_id = new.occasion_id)
    where person_id = new.person_id and occasion_id = new.occasion_id`,
};

/**
 * 16 writers on one pair: marks with a worker running, against triggers that keep the total, and
 * against nobody who keeps one, which is what these writers can reach at all.
 */
export async function hot(): Promise<Outcome> {
  return await withRedis(
    async (redisUrl) =>
      await withPostgres(async ({ pool, url }) => {
        await fill(pool, { pairs: 100, assignmentsPerPair: SIZES['1,000'] });
        const few = { personId: '1', occasionId: '1', assignments: SIZES['1,000'] };
        const many = { personId: '2', occasionId: '1', assignments: SIZES['10,000'] };
        await addAssignments(pool, many, many.assignments - few.assignments);
        const worker = await startOurs(url, { backend: 'redis', url: redisUrl });
        try {
          const measured = await measureAlternating(
            [...sidesOf(pool, many, 'of 10,000'), ...sidesOf(pool, few, 'of 1,000')],
            ROUNDS,
          );
          await untilNothingIsPending(pool);
          await mustBeRight(pool);
          const [marks, increment, sum, none, ...ofFew] = measured as [Measured, ...Measured[]];
          return {
            table: rateTable(measured, 'assignments/s'),
            figures: [
              { key: 'vs_increment_trigger', value: ratioOf(marks!, increment!), atLeast: 5 },
              { key: 'vs_sum_trigger', value: ratioOf(marks!, sum!), atLeast: 8 },
              { key: 'none_vs_increment_trigger', value: ratioOf(none!, increment!) },
              { key: 'none_vs_sum_trigger', value: ratioOf(none!, sum!) },
              { key: 'vs_increment_trigger_of_1000', value: ratioOf(ofFew[0]!, ofFew[1]!) },
              { key: 'vs_sum_trigger_of_1000', value: ratioOf(ofFew[0]!, ofFew[2]!) },
              { key: 'none_vs_increment_trigger_of_1000', value: ratioOf(ofFew[3]!, ofFew[1]!) },
              { key: 'none_vs_sum_trigger_of_1000', value: ratioOf(ofFew[3]!, ofFew[2]!) },
            ],
          };
        } finally {
          await worker.stop();
        }
      }),
  );
}

/** Behind the triggers, and with a total that is right. */
async function addAssignments(pool: pg.Pool, pair: HotPair, count: number): Promise<void> {
  await withoutMarks(pool, [
    `insert into gift_persons (gift_id, person_id, occasion_id, amount)
     select 1 + floor(random() * ${GIFTS}), ${pair.personId}, ${pair.occasionId}, 1.25
       from generate_series(1, ${count})`,
  ]);
  await tidy(pool);
}

function sidesOf(pool: pg.Pool, pair: HotPair, size: string): Side[] {
  return [
    markedAndRecalculated(pool, pair, size),
    ...Object.entries(TRIGGERS).map(([name, body]) => keptBy(pool, pair, `${name}, ${size}`, body)),
    unkept(pool, pair, size),
  ];
}

function markedAndRecalculated(pool: pg.Pool, pair: HotPair, size: string): Side {
  return {
    name: `marks, with a worker, ${size}`,
    async prepare() {
      await pool.query('drop trigger if exists keep_total on gift_persons');
      await startOver(pool, pair);
      await setMarking(pool, true);
    },
    run: async () => await insertInLoops(pool, WRITERS, WRITE_MS, pair),
  };
}

function keptBy(pool: pg.Pool, pair: HotPair, name: string, body: string): Side {
  return {
    name,
    async prepare() {
      await startOver(pool, pair);
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
    run: async () => await insertInLoops(pool, WRITERS, WRITE_MS, pair),
  };
}

function unkept(pool: pg.Pool, pair: HotPair, size: string): Side {
  return {
    name: `no total kept, ${size}`,
    async prepare() {
      await pool.query('drop trigger if exists keep_total on gift_persons');
      await startOver(pool, pair);
    },
    run: async () => await insertInLoops(pool, WRITERS, WRITE_MS, pair),
  };
}

/** Each round begins with the same assignments of the pair, or a sum would cost more each time. */
async function startOver(pool: pg.Pool, pair: HotPair): Promise<void> {
  await untilNothingIsPending(pool);
  await setMarking(pool, false);
  await pool.query(
    `delete from gift_persons
      where person_id = $1 and occasion_id = $2 and id not in (
        select id from gift_persons
         where person_id = $1 and occasion_id = $2 order by id limit $3)`,
    [pair.personId, pair.occasionId, pair.assignments],
  );
  await tidy(pool);
}
