import type pg from 'pg';
import type { Pair } from '../../src/events/contract.ts';
import { clearMarks } from '../../src/recalculation/clear-marks.ts';
import { lockBudgets } from '../../src/recalculation/lock-budgets.ts';
import { storeTotals } from '../../src/recalculation/store-totals.ts';
import { recalculateInTransaction } from '../../src/recalculation/recalculate.ts';
import { BEGIN, inRecalculationTransaction } from '../../src/recalculation/transaction.ts';
import { writeMarks } from '../../src/recalculation/write-marks.ts';
import { Gate } from './gate.ts';
import type { Actor, Lane, Step } from './schedule.ts';

/** Makes a recalculation of one pair, right or wrong, for one run of one order. */
export type MakeRecalculation = (name: string, pair: Pair, lane: Lane) => Actor;

export const SUM = `(select coalesce(sum(c.amount), 0) from budget_contributions c
  where c.person_id = b.person_id and c.occasion_id = b.occasion_id)`;

const COMMIT: Step = { touches: 'commit', run: async (client) => await client.query('commit') };

const key = (pair: Pair): string[] => [pair.personId, pair.occasionId];

/**
 * The project's own recalculation as it is, its statements held back one by one: lock (with the
 * begin), clear, store or mark as busy, commit.
 */
export const recalculation: MakeRecalculation = (name, pair) => {
  let gate: Gate;
  return {
    name,
    steps: [
      {
        touches: 'budget lock',
        async run(client) {
          gate = new Gate(
            client,
            async (pool) =>
              await inRecalculationTransaction(
                pool,
                async (gated) => await recalculateInTransaction(gated, [pair]),
              ),
          );
          await gate.pass();
          await gate.pass();
        },
      },
      { touches: 'marks', run: async () => await gate.pass() },
      // A pair without a budget has nothing to store: its commit keeps its own turn.
      { touches: 'total', run: async () => await gate.passUnless('commit') },
      { touches: 'commit', run: async () => await gate.pass('commit') },
    ],
  };
};

/** The wrong variants that were tried, and must be caught. */
export const mutations: Readonly<Record<string, MakeRecalculation>> = {
  'sum before clearing the marks': (name, pair) => {
    const { lock, clear, store } = statements(pair);
    return { name, steps: [lock, store, clear, COMMIT] };
  },

  'clearing the marks of a pair that was not locked': (name, pair) => {
    // Whatever was not locked is taken for missing, so it gets no mark for being busy either.
    const { lock, store } = statements(pair, async () => {});
    const clear: Step = {
      touches: 'marks',
      run: async (client) =>
        await client.query(
          `delete from pending_recalculations where id in (
             select id from pending_recalculations
              where person_id = $1 and occasion_id = $2 for update skip locked)`,
          key(pair),
        ),
    };
    return { name, steps: [lock, clear, store, COMMIT] };
  },

  'lock and sum in one statement': lockAndSumInOneStatement,
};

const MARK_BUSY_ONCE = `insert into pending_recalculations (person_id, occasion_id)
  values ($1, $2) on conflict do nothing`;

/** At most one mark a pair, and whoever finds one leaves it at that. */
export const uniqueMarks = {
  schema: `
    truncate pending_recalculations;
    create unique index one_mark_a_pair on pending_recalculations (person_id, occasion_id);
    do $$
    declare f record;
    begin
      for f in select pg_get_functiondef(oid) as source from pg_proc
                where proname in ('mark_changed_assignments', 'mark_new_budgets') loop
        execute regexp_replace(
          f.source, '(insert into [^;]+);', '\\1 on conflict do nothing;', 'g');
      end loop;
    end $$`,
  recalculation: ((name, pair) => {
    const { lock, clear, store } = statements(pair, async (client) => {
      await client.query(MARK_BUSY_ONCE, key(pair));
    });
    return { name, steps: [lock, clear, store, COMMIT] };
  }) as MakeRecalculation,
};

function statements(
  pair: Pair,
  markBusy: (client: pg.PoolClient) => Promise<void> = async (client) =>
    await writeMarks(client, [pair]),
): { lock: Step; clear: Step; store: Step } {
  let locked: ReadonlyMap<number, string> = new Map();
  let missing: ReadonlySet<number> = new Set();
  return {
    lock: {
      touches: 'budget lock',
      async run(client) {
        await client.query(BEGIN);
        locked = await lockBudgets(client, [pair]);
      },
    },
    clear: {
      touches: 'marks',
      run: async (client) => (missing = await clearMarks(client, [pair], locked)),
    },
    store: {
      touches: 'total',
      async run(client) {
        const before = locked.get(0);
        if (before !== undefined) await storeTotals(client, [{ ...pair, before }]);
        else if (!missing.has(0)) await markBusy(client);
      },
    },
  };
}

let gates = 0;

/**
 * A statement takes its snapshot when it begins, and its locks as it comes to the rows, which for
 * the last of 500 pairs is a while later. A gate, an advisory lock of the observer's, keeps the
 * two apart here, so that others get their turn in between.
 */
function lockAndSumInOneStatement(name: string, pair: Pair, { observer }: Lane): Actor {
  const gate = (gates += 1);
  let begun: Promise<unknown>;
  return {
    name,
    steps: [
      {
        touches: 'total',
        async run(client) {
          await client.query(BEGIN);
          await observer.query('select pg_advisory_lock($1)', [gate]);
          begun = client.query(
            `with gate as materialized (
               select pg_advisory_xact_lock_shared($3)
             ), locked as materialized (
               select b.person_id, b.occasion_id
                 from gate, person_occasions b
                where b.person_id = $1 and b.occasion_id = $2
                  for no key update of b skip locked
             ), cleared as (
               delete from pending_recalculations m using locked l
                where m.person_id = l.person_id and m.occasion_id = l.occasion_id
             )
             update person_occasions b set budget_spent = ${SUM}
               from locked l
              where b.person_id = l.person_id and b.occasion_id = l.occasion_id`,
            [...key(pair), gate],
          );
          begun.catch(() => {});
          await untilAtGate(observer, client);
        },
      },
      {
        touches: 'budget lock',
        async run() {
          await observer.query('select pg_advisory_unlock($1)', [gate]);
          await begun;
        },
      },
      COMMIT,
    ],
  };
}

async function untilAtGate(observer: pg.PoolClient, client: pg.PoolClient): Promise<void> {
  const { processID } = client as unknown as { processID: number };
  for (;;) {
    const { rows } = await observer.query(
      `select coalesce(wait_event = 'advisory', false) as there
         from pg_stat_activity where pid = $1`,
      [processID],
    );
    if (rows[0].there) return;
  }
}

/** What somebody does to the pair, in a transaction of their own. */
export interface Writer {
  readonly does: string;
  /** Whether the pair has its budget, and a marked assignment of 10, before anybody begins. */
  readonly budgetExists: boolean;
  readonly make: (pair: Pair) => Actor;
}

const insertAssignment = async (client: pg.PoolClient, pair: Pair): Promise<unknown> =>
  await client.query(
    'insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, $1, $2, 5)',
    key(pair),
  );

const insertBudget = async (client: pg.PoolClient, pair: Pair): Promise<unknown> =>
  await client.query(
    'insert into person_occasions (person_id, occasion_id) values ($1, $2)',
    key(pair),
  );

const deleteBudget = async (client: pg.PoolClient, pair: Pair): Promise<unknown> =>
  await client.query(
    'delete from person_occasions where person_id = $1 and occasion_id = $2',
    key(pair),
  );

export const changesAnAssignment: Writer = {
  does: 'changes an assignment',
  budgetExists: true,
  make: (pair) => writer('assignment', 'assignments', async (c) => await insertAssignment(c, pair)),
};

export const createsTheBudget: Writer = {
  does: 'creates the budget and an assignment',
  budgetExists: false,
  make: (pair) =>
    writer('creation', 'budget row', async (client) => {
      await insertBudget(client, pair);
      await insertAssignment(client, pair);
    }),
};

export const deletesTheBudget: Writer = {
  does: 'deletes the budget',
  budgetExists: true,
  make: (pair) => writer('deletion', 'budget row', async (c) => await deleteBudget(c, pair)),
};

export const replacesTheBudget: Writer = {
  does: 'deletes the budget and creates it again with another assignment',
  budgetExists: true,
  make: (pair) =>
    writer('replacement', 'budget row', async (client) => {
      await deleteBudget(client, pair);
      await insertBudget(client, pair);
      await insertAssignment(client, pair);
    }),
};

const FOREIGN_KEY_VIOLATION = '23503';

/** A writer whose budget is gone, or not there yet, is refused; it then has changed nothing. */
function writer(
  name: string,
  touches: Step['touches'],
  change: (client: pg.PoolClient) => Promise<unknown>,
): Actor {
  return {
    name,
    steps: [
      {
        touches,
        async run(client) {
          await client.query('begin');
          await change(client).catch((error: { code?: string }) => {
            if (error.code !== FOREIGN_KEY_VIOLATION) throw error;
          });
        },
      },
      // Where the change was refused this is a rollback, by PostgreSQL's own rule.
      COMMIT,
    ],
  };
}
