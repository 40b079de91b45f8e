import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { BudgetReader } from '../../src/budgets/reader.ts';
import { openDatabase } from '../../src/database.ts';
import { GiftEventClient } from '../../src/events/client.ts';
import type { Pair } from '../../src/events/contract.ts';
import { catchUpOnce } from '../../src/recalculation/catch-up.ts';
import { recalculate } from '../../src/recalculation/recalculate.ts';
import { BEGIN } from '../../src/recalculation/transaction.ts';
import {
  assign,
  countMarks,
  eventually,
  seedPairs,
  spent,
  wrongTotals,
} from '../support/budgets.ts';
import { createOwnRedis, freePort, type OwnRedis } from '../support/outages.ts';
import { hasPgBouncer, type PgBouncer, startPgBouncer } from '../support/pgbouncer.ts';
import { runProgram, startProgram } from '../support/run-program.ts';
import { createTestDatabase, type TestDatabase } from '../support/servers.ts';

describe.skipIf(!hasPgBouncer())('behind PgBouncer in transaction mode', () => {
  let database: TestDatabase;
  let bouncer: PgBouncer;
  let pairs: Pair[];

  beforeAll(async () => {
    database = await createTestDatabase();
    pairs = await seedPairs(database.pool, 40, 2);
    const { worker, reader, upstream } = database;
    bouncer = await startPgBouncer([worker.url, reader.url, upstream.url]);
  });
  afterAll(async () => {
    await bouncer.stop();
    await database.close();
  });
  beforeEach(async () => {
    await database.pool.query('truncate gift_persons, pending_recalculations');
    await database.pool.query('update person_occasions set budget_spent = 0');
    await database.pool.query('delete from pending_recalculations');
  });

  const env = (): NodeJS.ProcessEnv => ({
    DATABASE_URL: bouncer.through(database.worker.url),
    GIFT_BUDGETS_POOLER: 'transaction',
    GIFT_BUDGETS_DASHBOARD_PORT: '0',
  });

  it('recalculations run on whichever connection there is, and without the setting they do not', async () => {
    const url = bouncer.through(database.worker.url);
    const recalculating = async (pooled: boolean): Promise<void> => {
      const opened = await openDatabase(url, { pooled, poolMax: 8 });
      try {
        const many = Array.from({ length: 200 }, async (_, place) => {
          await recalculate(opened.pool, [pairs[place % pairs.length]!]);
        });
        for (const result of await Promise.allSettled(many)) {
          if (result.status === 'rejected') throw result.reason;
        }
      } finally {
        await opened.close();
      }
    };
    await recalculating(true);
    await expect(recalculating(false)).rejects.toThrow(
      /prepared statement "[\w-]+" (already|does not)/,
    );
  });

  it('no setting of a recalculation stays behind on a connection of the server', async () => {
    const opened = await openDatabase(bouncer.through(database.worker.url), { pooled: true });
    const names = [...BEGIN.matchAll(/set local (\S+)/g)].map(([, name]) => name!);
    expect(names).toContain('gift_budgets.recalculating');
    try {
      const settings = `select ${names.map((name) => `current_setting('${name}', true)`).join(` || ',' || `)} as all`;
      const client = new pg.Client({ connectionString: database.worker.url });
      await client.connect();
      const before = (await client.query(settings)).rows[0].all;
      await client.end();
      await Promise.all(pairs.map(async (pair) => await recalculate(opened.pool, [pair])));
      const after = Array.from({ length: 20 }, async () => await opened.pool.query(settings));
      const seen = new Set((await Promise.all(after)).map(({ rows }) => rows[0].all as string));
      // A custom setting that was local once is '' afterwards, not missing.
      expect([...seen].map((all) => all ?? '')).toEqual([before ?? expect.stringMatching(/^,/)]);
    } finally {
      await opened.close();
    }
  });

  describe.skipIf(inject('redisUrl') === null)('with the queue in Redis', () => {
    let redis: OwnRedis;

    beforeAll(async () => {
      redis = createOwnRedis(await freePort());
      await redis.start();
    });
    afterAll(async () => {
      await redis.stop();
    });

    it('the worker serves events and marks while upstreams write through it, and stops cleanly', async () => {
      const events = new GiftEventClient(redis.connection);
      const upstream = new pg.Pool({
        connectionString: bouncer.through(database.upstream.url),
        max: 4,
      });
      const programs = [1, 2].map(() =>
        startProgram(['start'], { ...env(), REDIS_URL: redis.connection.url }),
      );
      try {
        await Promise.all(programs.map(async (program) => await program.said(/"started"/)));
        for (let change = 0; change < 400; change += 1) {
          const pair = pairs[(change * 7) % pairs.length]!;
          await assign(upstream, pair, `${change % 50}.25`);
          if (change % 2 === 0) await events.giftAssigned([pair]);
        }
        await eventually(
          async () => await countMarks(database.pool),
          (marks) => marks === 0,
        );
        expect(await wrongTotals(database.pool)).toEqual([]);
      } finally {
        for (const program of programs) program.kill('SIGTERM');
        const ends = await Promise.all(programs.map(async (program) => await program.ended()));
        await upstream.end();
        await events.close();
        for (const { code, out, err } of ends) {
          expect(code).toBe(0);
          expect(out + err).not.toMatch(/prepared statement|startup parameter|trying again/);
        }
      }
    });

    it.each([
      [['repair'], /80 budgets checked/],
      [['verify'], /80 budgets checked, 0 wrong/],
      [['status'], /nothing is pending/],
      [['failures'], /No failures/],
      [['fill', '--again'], /80 budgets recalculated here/],
      [['explain', '--person', '1', '--occasion', '1'], /The stored total is right/],
    ])('%j works', async (args, said) => {
      const { code, out, err } = await runProgram(args, {
        ...env(),
        REDIS_URL: redis.connection.url,
      });
      expect({ code, err }).toEqual({ code: 0, err: '' });
      expect(out).toMatch(said);
    });

    it.each([[['migrate']], [['show', '--all']]])(
      '%j says that it needs the server itself',
      async (args) => {
        const { code, err } = await runProgram(args, {
          ...env(),
          REDIS_URL: redis.connection.url,
        });
        expect(code).toBe(1);
        expect(err).toMatch(/^error: .* needs a session of its own, and GIFT_BUDGETS_POOLER=/);
      },
    );
  });

  it('a queue in PostgreSQL is refused before anything is tried', async () => {
    const { code, err } = await runProgram(['start'], env());
    expect(code).toBe(1);
    expect(err).toMatch(/^error: REDIS_URL: expected with GIFT_BUDGETS_POOLER=transaction/);
  });

  it('a reader in a program of its own needs nothing special', async () => {
    const pool = new pg.Pool({ connectionString: bouncer.through(database.reader.url), max: 4 });
    const reader = new BudgetReader(pool);
    const [pair] = pairs as [Pair];
    try {
      await assign(database.upstream.pool, pair, '3.00');
      const waiting = reader.waitUntilFresh(pair, 20_000);
      const timing = { pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 };
      await catchUpOnce({ pool: database.worker.pool, pairsMax: 500, ...timing });
      expect(await waiting).toMatchObject({ spent: '3.00' });
      expect(await spent(database.pool, pair)).toBe('3.00');
      expect((await reader.lag()).pendingPairs).toBe(0);
    } finally {
      await pool.end();
    }
  });
});
