import { defineEntity, p, TransactionPropagation } from '@mikro-orm/core';
import type { EntityManager } from '@mikro-orm/postgresql';
import { MikroORM } from '@mikro-orm/postgresql';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { mikroOrmOptions } from '../src/database.ts';
import { GiftPerson } from '../src/entities/assignments.ts';
import { entities } from '../src/entities/index.ts';
import { GiftEventBuffer } from '../src/events/buffer.ts';
import type { Pair } from '../src/events/contract.ts';
import { GiftEventSubscriber } from '../src/events/mikro-orm-subscriber.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../src/queue.ts';
import { countMarks, seedPairs } from './support/budgets.ts';
import { emptyQueue } from './support/empty-queue.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

/** An upstream's own entity on our table, that knows nothing but ids. */
const Assignment = defineEntity({
  name: 'Assignment',
  tableName: 'gift_persons',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    giftId: p.bigint('string'),
    personId: p.bigint('string'),
    occasionId: p.bigint('string').nullable(),
    amount: p.decimal('string').precision(10).scale(2).nullable(),
  },
});

/** How an upstream maps assignments; what the tests do to one is the same for all. */
interface Mapping {
  readonly entities: typeof entities | [typeof Assignment];
  /** The properties that say which pair it is of. */
  readonly of: (pair: Pair) => object;
  readonly entity: typeof Assignment;
}

const MAPPINGS: readonly [string, Mapping][] = [
  ['plain ids', { entities: [Assignment], entity: Assignment, of: (pair) => ({ ...pair }) }],
  [
    'relations',
    {
      entities,
      entity: GiftPerson as never,
      of: ({ personId, occasionId }) => ({
        person: personId,
        occasionId,
        budget: [personId, occasionId],
      }),
    },
  ],
];

describe('the subscriber', () => {
  let database: TestDatabase;
  let connection: QueueConnection;
  let looking: OpenQueue;
  let events: GiftEventBuffer;
  let a: Pair;
  let b: Pair;
  let c: Pair;

  beforeAll(async () => {
    database = await createTestDatabase();
    connection = { backend: 'postgres', url: database.worker.url };
    looking = openGiftEventsQueue(connection, () => {});
    await looking.connected();
    [a, b, c] = (await seedPairs(database.pool, 3, 1)) as [Pair, Pair, Pair];
    await database.pool.query('update gifts set id = 1');
  });
  afterAll(async () => {
    await looking.close();
    await database.close();
  });
  beforeEach(async () => {
    await database.pool.query('truncate gift_persons');
    await emptyQueue(looking.queue, connection);
    events = new GiftEventBuffer(connection);
  });

  const waitingJobs = async () => await looking.queue.getJobs(['waiting'], 0, -1, true);

  /** Everything that is sent up to now: 'name person', sorted. */
  async function sent(): Promise<string[]> {
    await events.close();
    return (await waitingJobs())
      .map(({ name, data }) => `${name} ${(data as Data).affected[0].personId}`)
      .toSorted();
  }

  interface Data {
    readonly affected: readonly [Pair];
  }

  describe.each(MAPPINGS)('of assignments mapped with %s', (_, mapping) => {
    const { entity, of } = mapping;
    let orm: MikroORM;

    beforeEach(async () => {
      orm = await MikroORM.init({
        ...mikroOrmOptions(database.upstream.url),
        entities: [...mapping.entities],
        subscribers: [new GiftEventSubscriber(events)],
      });
    });
    afterEach(async () => {
      await events.close();
      await orm.close();
    });

    const gift = () => (entity === Assignment ? { giftId: '1' } : { gift: '1' });
    const create = (em: EntityManager, pair: Pair) =>
      em.create(entity, { ...gift(), ...of(pair), amount: '5.00' } as never);
    const find = async (em: EntityManager, id: string) => await em.findOneOrFail(entity, { id });
    const move = (em: EntityManager, assignment: object, pair: Pair) =>
      em.assign(assignment, of(pair) as never);

    /** An assignment that nobody has told of. */
    async function existing({ personId, occasionId }: Pair): Promise<string> {
      const { rows } = await database.pool.query<{ id: string }>(
        `insert into gift_persons (gift_id, person_id, occasion_id, amount)
         values ((select min(id) from gifts), $1, $2, 1) returning id`,
        [personId, occasionId],
      );
      return rows[0]!.id;
    }

    it('sends what a unit of work has inserted, updated and deleted, each pair once', async () => {
      const [moved, removed] = [await existing(a), await existing(b)];
      const em = orm.em.fork();
      move(em, await find(em, moved), b);
      em.remove(await find(em, removed));
      for (let n = 0; n < 300; n += 1) create(em, c);
      await em.flush();
      expect(await sent()).toEqual([
        `gift.assigned ${c.personId}`,
        `gift.moved ${a.personId}`,
        `gift.unassigned ${b.personId}`,
      ]);
    });

    it('sends the pair of a changed amount, and nothing where nothing has changed', async () => {
      const ids = [await existing(a), await existing(b)];
      const em = orm.em.fork();
      const [changed, same] = [await find(em, ids[0]!), await find(em, ids[1]!)];
      changed.amount = '2.00';
      same.amount = '1.00';
      await em.flush();
      expect(await sent()).toEqual([`gift.moved ${a.personId}`]);
    });

    it('sends nothing before the commit', async () => {
      await orm.em.fork().transactional(async (em) => {
        create(em, a);
        await em.flush();
        expect(events.counts()).toMatchObject({ waiting: 0, sent: 0 });
        expect(await waitingJobs()).toEqual([]);
      });
      expect(await sent()).toEqual([`gift.assigned ${a.personId}`]);
    });

    it('names every pair on the way, the first one too', async () => {
      const id = await existing(a);
      await orm.em.fork().transactional(async (em) => {
        const assignment = await find(em, id);
        move(em, assignment, b);
        await em.flush();
        move(em, assignment, c);
      });
      expect(await sent()).toEqual([a, b, c].map(({ personId }) => `gift.moved ${personId}`));
    });

    it('names the stored pair of what is changed and then deleted', async () => {
      const id = await existing(a);
      const em = orm.em.fork();
      const assignment = await find(em, id);
      move(em, assignment, b);
      em.remove(assignment);
      await em.flush();
      expect(await sent()).toEqual([`gift.unassigned ${a.personId}`]);
    });

    it('sends nothing of what is rolled back', async () => {
      const rolledBack = orm.em.fork().transactional(async (em) => {
        create(em, a);
        await em.flush();
        throw new Error('changed my mind');
      });
      await expect(rolledBack).rejects.toThrow('changed my mind');
      const byHand = orm.em.fork();
      await byHand.begin();
      create(byHand, b);
      await byHand.flush();
      await byHand.rollback();
      const refused = orm.em.fork();
      create(refused, { personId: '404', occasionId: '404' });
      await expect(refused.flush()).rejects.toThrow(/foreign key/);
      const kept = orm.em.fork();
      await kept.begin();
      create(kept, c);
      await kept.commit();
      expect(await sent()).toEqual([`gift.assigned ${c.personId}`]);
    });

    it('sends nothing where the commit itself is refused', async () => {
      await database.pool.query(
        `create function refuse() returns trigger language plpgsql as
           $$ begin raise 'refused at the commit'; end $$;
         create constraint trigger refuse after insert on gift_persons
           deferrable initially deferred for each row execute function refuse()`,
      );
      try {
        const em = orm.em.fork();
        create(em, a);
        await expect(em.flush()).rejects.toThrow('refused at the commit');
      } finally {
        await database.pool.query(`drop trigger refuse on gift_persons; drop function refuse`);
      }
      expect(await sent()).toEqual([]);
    });

    it('sends what a released savepoint has changed with its transaction, and no sooner', async () => {
      await orm.em.fork().transactional(async (outer) => {
        create(outer, a);
        await outer.transactional(async (inner) => {
          await inner.transactional(async (innermost) => void create(innermost, b));
        });
        expect(events.counts()).toMatchObject({ waiting: 0, sent: 0 });
        expect(await waitingJobs()).toEqual([]);
      });
      expect(await sent()).toEqual([a, b].map(({ personId }) => `gift.assigned ${personId}`));
    });

    it('forgets what a savepoint has changed that is rolled back, and what was released in it', async () => {
      const [stays, undone] = [await existing(a), await existing(b)];
      await orm.em.fork().transactional(async (outer) => {
        (await find(outer, stays)).amount = '3.00';
        await outer.flush();
        const inner = outer.transactional(
          async (em) => {
            await em.transactional(
              async (innermost) => void ((await find(innermost, undone)).amount = '3.00'),
              { clear: true },
            );
            throw new Error('undone');
          },
          { clear: true },
        );
        await expect(inner).rejects.toThrow('undone');
      });
      expect(await sent()).toEqual([`gift.moved ${a.personId}`]);
      const { rows } = await database.pool.query('select amount from gift_persons order by id');
      expect(rows).toEqual([{ amount: '3.00' }, { amount: '1.00' }]);
    });

    it('forgets all of a transaction that is rolled back behind a released savepoint', async () => {
      const outer = orm.em.fork().transactional(async (em) => {
        await em.transactional(async (inner) => void create(inner, a));
        throw new Error('all of it');
      });
      await expect(outer).rejects.toThrow('all of it');
      expect(await sent()).toEqual([]);
    });

    it('sends what a transaction of its own has changed, whatever becomes of the one around', async () => {
      const outer = orm.em.fork().transactional(async (em) => {
        create(em, b);
        await em.flush();
        const own = { propagation: TransactionPropagation.REQUIRES_NEW, clear: true };
        await em.transactional(async (inner) => void create(inner, a), own);
        throw new Error('only this one');
      });
      await expect(outer).rejects.toThrow('only this one');
      expect(await sent()).toEqual([`gift.assigned ${a.personId}`]);
    });

    it('sends what managers of their own have changed in one transaction, and in the next', async () => {
      const [outer, inner] = [orm.em.fork(), orm.em.fork()];
      await outer.begin();
      await inner.begin({ ctx: outer.getTransactionContext() });
      create(inner, a);
      await inner.commit();
      await inner.begin({ ctx: outer.getTransactionContext() });
      create(inner, c);
      await inner.flush();
      await inner.rollback();
      await outer.commit();
      await inner.begin();
      create(inner, b);
      await inner.commit();
      expect(await sent()).toEqual([a, b].map(({ personId }) => `gift.assigned ${personId}`));
    });

    it('keeps transactions apart that run at the same time', async () => {
      const work = Array.from({ length: 10 }, async (__, n) => {
        await orm.em.fork().transactional(async (em) => {
          create(em, n % 2 === 0 ? a : b);
          await em.flush();
          if (n % 2 === 1) throw new Error('odd');
        });
      });
      await Promise.allSettled(work);
      expect(await sent()).toEqual([`gift.assigned ${a.personId}`]);
    });

    it('sends at once what is stored without a transaction', async () => {
      orm.config.set('implicitTransactions', false);
      const id = await existing(a);
      const em = orm.em.fork();
      em.remove(await find(em, id));
      create(em, b);
      await em.flush();
      expect(await sent()).toEqual([
        `gift.assigned ${b.personId}`,
        `gift.unassigned ${a.personId}`,
      ]);
    });

    it('sends the new pair of an upsert', async () => {
      const id = await existing(a);
      const { budget: __, ...own } = of(b) as { budget?: unknown };
      await orm.em.fork().upsert(entity, { id, ...gift(), ...own, amount: '1.00' } as never);
      expect(await sent()).toEqual([`gift.assigned ${b.personId}`]);
    });

    it('counts what names no pair: of which only the key was loaded; its mark tells it', async () => {
      const [changed, removed] = [await existing(a), await existing(a)];
      await database.pool.query('truncate pending_recalculations');
      const em = orm.em.fork();
      em.getReference(entity, changed).amount = '7.00';
      em.remove(em.getReference(entity, removed));
      await em.flush();
      expect(await sent()).toEqual([]);
      expect(events.counts()).toMatchObject({ unnamed: 3, sent: 0 });
      expect(await countMarks(database.pool)).toBe(2);
    });

    it('has nothing to tell of an assignment without an occasion, or of other entities', async () => {
      const em = orm.em.fork();
      const none = {
        ...of(a),
        occasionId: null,
        ...(entity === Assignment ? {} : { budget: null }),
      };
      em.create(entity, { ...gift(), ...none, amount: '5.00' } as never);
      await em.flush();
      expect(await sent()).toEqual([]);
      expect(events.counts()).toEqual({ waiting: 0, sent: 0, failed: 0, dropped: 0, unnamed: 0 });
    });
  });
});
