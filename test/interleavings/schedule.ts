import type pg from 'pg';

/** What a step touches; by it two steps are known to be unable to see each other. */
export type Touches = 'budget lock' | 'budget row' | 'marks' | 'assignments' | 'total' | 'commit';

/** One statement of an actor, on the actor's own connection. */
export interface Step {
  readonly touches: Touches;
  readonly run: (client: pg.PoolClient) => Promise<unknown>;
}

export interface Actor {
  readonly name: string;
  readonly steps: readonly Step[];
}

/** Connections on which one order at a time is run: one an actor, and one that looks on. */
export interface Lane {
  readonly clients: readonly pg.PoolClient[];
  readonly observer: pg.PoolClient;
}

/**
 * Every order of the actors' steps, each as the sequence of the actors that take a step. Actors 0
 * and 1 are alike, so of two orders that only swap them one is given.
 *
 * @param independent where two neighbouring steps of different actors are so, the order that has
 *   the later actor first is left out: it differs in nothing that anybody could see.
 */
export function* orders(
  actors: readonly (readonly Touches[])[],
  independent: (first: Touches, second: Touches) => boolean,
): Generator<number[]> {
  const taken = actors.map(() => 0);
  const steps = actors.reduce((sum, { length }) => sum + length, 0);
  yield* extend([], undefined);

  function* extend(order: number[], last: Touches | undefined): Generator<number[]> {
    if (order.length === steps) yield [...order];
    for (const [actor, all] of actors.entries()) {
      const step = all[taken[actor]!];
      if (step === undefined || (actor === 1 && taken[0] === 0)) continue;
      if (last && order.at(-1)! > actor && independent(last, step)) continue;
      taken[actor]! += 1;
      order.push(actor);
      yield* extend(order, step);
      order.pop();
      taken[actor]! -= 1;
    }
  }
}

const DEPENDENT = new Set([
  'budget lock/budget lock',
  'budget lock/budget row',
  'budget lock/assignments', // a foreign key locks the budget row
  'budget row/budget row',
  'budget row/assignments',
  'marks/marks',
]);

/**
 * Steps that cannot see each other: what is not committed is visible to nobody, so two steps
 * depend on each other where one commits, or where both lock the same rows. Two commits that
 * follow each other have nothing in between that could tell them apart.
 */
export function cannotSeeEachOther(first: Touches, second: Touches): boolean {
  if (first === 'commit' || second === 'commit') return first === second;
  return !DEPENDENT.has(`${first}/${second}`) && !DEPENDENT.has(`${second}/${first}`);
}

export const canAlwaysSeeEachOther = (): boolean => false;

/** A step that takes longer may be waiting for a lock; PostgreSQL is asked whether it is. */
const PATIENCE_MS = 2;

/**
 * Runs the steps in the order given. A step that waits for a lock is left waiting, and its actor's
 * later turns are taken as soon as it is through, which is the order that the locks allow.
 *
 * @param afterCommit called whenever a commit is through, before the next step.
 * @returns the names of the actors that had to wait.
 */
export async function runOrder(
  { clients, observer }: Lane,
  actors: readonly Actor[],
  order: readonly number[],
  afterCommit: () => Promise<void>,
): Promise<Set<string>> {
  const waited = new Set<string>();
  const next = actors.map(() => 0);
  const pending = actors.map(() => 0);
  const running = actors.map(() => Promise.resolve());
  for (const actor of order) {
    const step = actors[actor]!.steps[next[actor]!]!;
    next[actor]! += 1;
    pending[actor]! += 1;
    running[actor] = running[actor]!.then(async () => {
      await step.run(clients[actor]!);
      pending[actor]! -= 1;
    });
    running[actor].catch(() => {});
    await untilAtRest();
    if (pending[actor]! > 0) waited.add(actors[actor]!.name);
    else if (step.touches === 'commit') await afterCommit();
  }
  await Promise.all(running);
  return waited;

  /** Until every step that was begun is through or waits for a lock. */
  async function untilAtRest(): Promise<void> {
    for (const [actor, client] of clients.entries()) {
      while (pending[actor]! > 0) {
        await Promise.race([running[actor], patience()]);
        if (pending[actor]! > 0 && (await waitsForARow(observer, client))) break;
      }
    }
  }
}

function patience(): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, PATIENCE_MS));
}

async function waitsForARow(observer: pg.PoolClient, client: pg.PoolClient): Promise<boolean> {
  const { processID } = client as unknown as { processID: number };
  const { rows } = await observer.query(
    `select coalesce(wait_event in ('transactionid', 'tuple'), false) as waits
       from pg_stat_activity where pid = $1`,
    [processID],
  );
  return rows[0].waits as boolean;
}
