import type {
  EntityManager,
  EntityMetadata,
  EventArgs,
  EventSubscriber,
  Transaction,
  TransactionEventArgs,
} from '@mikro-orm/core';
import type { GiftEventBuffer } from './buffer.ts';
import type { ChangedPairs } from './changed-pairs.ts';
import type { PairInput } from './client.ts';
import type { GiftEventName } from './contract.ts';

const ASSIGNMENTS = 'gift_persons';

/** An entity as MikroORM stores it: values by name of property, relations as their keys. */
type Stored = Readonly<Record<string, unknown>>;

/**
 * For upstreams that change assignments through MikroORM: sends the gift events of a unit of work
 * once its transaction is committed, with nothing to call by hand.
 *
 * An assignment is whatever entity is mapped to the table `gift_persons`; its pair is what the
 * properties on the columns `person_id` and `occasion_id` hold, be they relations or plain ids. Of an
 * update and a delete the pair of before is named too, from the data that the entity was loaded with.
 * A savepoint's pairs are its transaction's once it is released, and are forgotten with a rollback.
 *
 * What goes round the unit of work (`nativeUpdate`, the query builder, cascades of the database, an
 * entity of which no more than the key was loaded) is known only to the marks.
 *
 * Its methods do not wait for anything and do not throw: one that did would fail the flush.
 */
export class GiftEventSubscriber implements EventSubscriber {
  readonly #events: GiftEventBuffer;
  /**
   * What the open transactions and savepoints have changed; those that changed nothing are not in it.
   * A rollback needs no handling: without a commit nobody asks for it any more.
   */
  readonly #changed = new WeakMap<Transaction, ChangedPairs>();
  /** What encloses a savepoint. */
  readonly #enclosing = new WeakMap<Transaction, Transaction>();
  /** What encloses the savepoint that this manager is about to make, or made last. */
  readonly #enclosingNext = new WeakMap<EntityManager, Transaction>();
  /** The pairs of what is about to be deleted: MikroORM forgets them with the delete. */
  readonly #deleted = new WeakMap<object, readonly FoundPair[]>();

  constructor(events: GiftEventBuffer) {
    this.#events = events;
  }

  beforeTransactionStart({ em, transaction }: TransactionEventArgs): void {
    if (transaction) this.#enclosingNext.set(em, transaction);
  }

  afterTransactionStart({ em, transaction }: TransactionEventArgs): void {
    if (transaction?.savepointName === undefined) return;
    this.#enclosing.set(transaction, this.#enclosingNext.get(em)!);
  }

  afterTransactionCommit({ transaction }: TransactionEventArgs): void {
    const changed = transaction && this.#changed.get(transaction);
    if (!changed) return;
    this.#changed.delete(transaction);
    const enclosing = this.#enclosing.get(transaction);
    if (enclosing) this.#changedIn(enclosing).addAll(changed);
    else this.#events.send(changed);
  }

  afterCreate({ em, entity, meta }: EventArgs<object>): void {
    this.#note(
      em,
      'gift.assigned',
      pairsOf(meta, () => stored(em, entity)),
    );
  }

  afterUpdate({ em, entity, meta, changeSet }: EventArgs<object>): void {
    const before = pairsOf(meta, () => changeSet?.originalEntity as Stored);
    this.#note(em, 'gift.moved', [...before, ...pairsOf(meta, () => stored(em, entity))]);
  }

  /** Nothing tells the pair of before but its mark. */
  afterUpsert({ em, entity, meta }: EventArgs<object>): void {
    this.#note(
      em,
      'gift.assigned',
      pairsOf(meta, () => stored(em, entity)),
    );
  }

  beforeDelete({ em, entity, meta }: EventArgs<object>): void {
    const before = () => em.getUnitOfWork(false).getOriginalEntityData(entity) as Stored;
    const pairs = pairsOf(meta, before);
    if (pairs.length > 0) this.#deleted.set(entity, pairs);
  }

  afterDelete({ em, entity }: EventArgs<object>): void {
    this.#note(em, 'gift.unassigned', this.#deleted.get(entity) ?? []);
  }

  #note(em: EntityManager, name: GiftEventName, pairs: readonly FoundPair[]): void {
    if (pairs.length === 0) return;
    const transaction = em.getTransactionContext<Transaction>();
    const changed = transaction ? this.#changedIn(transaction) : this.#events.collect();
    for (const pair of pairs) {
      if (pair === 'unknown') changed.addUnnamed();
      else changed.add(name, [pair]);
    }
    // Outside any transaction the statement is committed by itself.
    if (!transaction) this.#events.send(changed);
  }

  #changedIn(transaction: Transaction): ChangedPairs {
    const known = this.#changed.get(transaction);
    if (known) return known;
    const changed = this.#events.collect();
    this.#changed.set(transaction, changed);
    return changed;
  }
}

type FoundPair = PairInput | 'unknown';

function stored(em: EntityManager, entity: object): Stored {
  return em.getComparator().prepareEntity(entity) as Stored;
}

/**
 * The pairs of an assignment; none of any other entity, or where it has no occasion. Where two
 * properties on the same column disagree (one of them was changed, the other not yet), both count:
 * to name a pair too many costs a sum.
 */
function pairsOf(meta: EntityMetadata, read: () => Stored | undefined): FoundPair[] {
  const columns = pairColumns(meta);
  if (columns === null) return [];
  const data = read();
  const persons = valuesOf(columns.person, data);
  const occasions = valuesOf(columns.occasion, data);
  if (persons.length === 0 || occasions.length === 0) return ['unknown'];
  return persons.flatMap((personId) =>
    occasions.flatMap((occasionId) => (occasionId === null ? [] : [{ personId, occasionId }])),
  ) as PairInput[];
}

function valuesOf(column: Column, data: Stored = {}): unknown[] {
  const values = column.map(({ property, at }) => {
    const value = data[property];
    return Array.isArray(value) ? (value.flat(Infinity) as unknown[])[at] : value;
  });
  return [...new Set(values)].filter((value) => value !== undefined);
}

/** Where a column is found: in these properties, at this place where their key has several. */
type Column = readonly { readonly property: string; readonly at: number }[];

interface PairColumns {
  readonly person: Column;
  readonly occasion: Column;
}

const columnsOfMeta = new WeakMap<EntityMetadata, PairColumns | null>();

function pairColumns(meta: EntityMetadata): PairColumns | null {
  const known = columnsOfMeta.get(meta);
  if (known !== undefined) return known;
  const columns =
    meta.tableName === ASSIGNMENTS
      ? { person: findColumn(meta, 'person_id'), occasion: findColumn(meta, 'occasion_id') }
      : null;
  columnsOfMeta.set(meta, columns);
  return columns;
}

function findColumn(meta: EntityMetadata, column: string): Column {
  return meta.props
    .map(({ name, fieldNames }) => ({ property: name, at: fieldNames?.indexOf(column) ?? -1 }))
    .filter(({ at }) => at >= 0);
}
