import type pg from 'pg';

interface Held {
  readonly text: string;
  /** Sends the statement, and resolves when PostgreSQL has answered. */
  readonly send: () => Promise<void>;
}

/** Holds back each statement that some work sends until its turn has come. */
export class Gate {
  readonly #finished: Promise<undefined>;
  #next = Promise.withResolvers<Held>();

  constructor(client: pg.PoolClient, work: (pool: pg.Pool) => Promise<unknown>) {
    const query = (statement: string | pg.QueryConfig, values?: unknown[]): Promise<unknown> => {
      const answer = Promise.withResolvers<unknown>();
      this.#next.resolve({
        text: typeof statement === 'string' ? statement : statement.text,
        async send() {
          answer.resolve(client.query(statement, values));
          await answer.promise.catch(() => {}); // the work itself is told
        },
      });
      return answer.promise;
    };
    const pool = { connect: async () => ({ query, release() {} }) } as unknown as pg.Pool;
    this.#finished = work(pool).then(() => undefined);
    this.#finished.catch(() => {});
  }

  /** Lets the next statement pass, which has to be this one if one is named. */
  async pass(text?: string): Promise<void> {
    const held = await this.#held();
    if (text !== undefined && held.text !== text) throw new Error(`not ${text}: ${held.text}`);
    this.#next = Promise.withResolvers<Held>();
    await held.send();
    if (held.text === 'commit') await this.#finished;
  }

  /** Lets the next statement pass unless it is this one, which waits for a turn of its own. */
  async passUnless(text: string): Promise<void> {
    const held = await this.#held();
    if (held.text !== text) await this.pass();
  }

  async #held(): Promise<Held> {
    const held = await Promise.race([this.#next.promise, this.#finished]);
    if (held === undefined) throw new Error('the work had no more statements to send');
    return held;
  }
}
