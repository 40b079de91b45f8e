import type { JobsOptions } from 'bullmq';
import { describeError } from '../describe-error.ts';
import { openGiftEventsQueue, type OpenQueue, type QueueConnection } from '../queue.ts';
import {
  type GiftEventInput,
  GiftEventInvalidError,
  type GiftEventName,
  isId,
  parseGiftEvent,
} from './contract.ts';

/** A pair as an upstream has it: keys as numbers, strings or bigints. */
export interface PairInput {
  readonly personId: number | string | bigint;
  readonly occasionId: number | string | bigint;
}

/** A pair, and what happened to it. */
export interface ChangedPair {
  readonly name: GiftEventName;
  readonly pair: PairInput;
}

/** What a call of the client added to the queue. */
export interface SentEvents {
  /** Jobs added or already waiting for the same pair; at most one per distinct pair. */
  readonly jobs: number;
}

/** The queue did not take the events; the marks of the change have it anyway, only later. */
export class GiftEventsNotSentError extends Error {
  readonly code = 'GIFT_EVENTS_NOT_SENT';
  override readonly name = 'GiftEventsNotSentError';
}

/** How many jobs travel in one round trip. */
const BULK_JOBS_MAX = 1_000;

/**
 * Sends gift events for TypeScript upstreams. Send after the commit of the change: the total is
 * summed from the rows, and an event that comes first finds the old ones.
 *
 * Each pair becomes one job whose data is that pair and nothing else, deduplicated so that a
 * pair has at most one job waiting and one active: whatever is added while one is being served
 * gets a sum of its own afterwards, and a burst on one pair costs a handful of sums. Nothing of an
 * event is lost by that, because the data of all events of a pair are the same.
 *
 * While Redis is away each call fails within about a tenth of a second with
 * {@link GiftEventsNotSentError}. That loses nothing: the change left a mark in the database,
 * and catch-up recalculates the pair from it.
 */
export class GiftEventClient {
  readonly #open: OpenQueue;
  #isClosed = false;
  /** What has gathered while a bulk is under way, and leaves next. */
  #gathered: Bulk | undefined;
  #sending = false;

  constructor(connection: QueueConnection) {
    // A lost connection is told by the call that needs it.
    this.#open = openGiftEventsQueue(connection, () => {});
  }

  /** A gift was assigned to these pairs. */
  async giftAssigned(pairs: Iterable<PairInput>): Promise<SentEvents> {
    return await this.sendPairs(changed('gift.assigned', pairs));
  }

  /** A gift was taken from these pairs. */
  async giftUnassigned(pairs: Iterable<PairInput>): Promise<SentEvents> {
    return await this.sendPairs(changed('gift.unassigned', pairs));
  }

  /** The price of a gift changed; these pairs have it. */
  async giftRepriced(pairs: Iterable<PairInput>): Promise<SentEvents> {
    return await this.sendPairs(changed('gift.repriced', pairs));
  }

  /** A gift was moved between pairs. Both totals changed, so both sides are named. */
  async giftMoved(from: Iterable<PairInput>, to: Iterable<PairInput>): Promise<SentEvents> {
    return await this.sendPairs(changed('gift.moved', [...from, ...to]));
  }

  /** Nothing is known to have changed; the totals of these pairs are to be recalculated. */
  async recalculateBudgets(pairs: Iterable<PairInput>): Promise<SentEvents> {
    return await this.sendPairs(changed('budget.recalculate', pairs));
  }

  /**
   * Sends an event for each pair. The ids are checked without the contract's schema, which took a fifth
   * of the whole time; it is asked only to say what is wrong.
   *
   * @throws {GiftEventInvalidError} before anything is sent, if there is no pair or a wrong one.
   */
  async sendPairs(pairs: readonly ChangedPair[]): Promise<SentEvents> {
    if (pairs.length === 0) throw new GiftEventInvalidError('expected at least one pair, got none');
    for (const { name, pair } of pairs) {
      if (!isId(pair.personId) || !isId(pair.occasionId)) {
        parseGiftEvent(name, { version: 1, affected: [pairToJson(pair)] });
      }
    }
    return await this.#add(pairs.map(({ name, pair }) => pairJob(name, pair)));
  }

  /**
   * Sends many events at once, as the contract writes them.
   *
   * @throws {GiftEventInvalidError} before anything is sent, if one of them is not valid.
   */
  async sendMany(events: Iterable<GiftEventInput>): Promise<SentEvents> {
    const jobs: Job[] = [];
    for (const { name, data } of events) {
      const event = parseGiftEvent(name, data);
      if (event.data.affected) jobs.push(...event.data.affected.map((pair) => pairJob(name, pair)));
      // The pairs of such a gift are the worker's to find, so there is nothing to deduplicate by.
      else jobs.push({ name, data: { version: 1, giftId: event.data.giftId }, opts: RETRY });
    }
    return await this.#add(jobs);
  }

  /** Closes the connection. Events whose promise has resolved are in the queue. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#open.close();
  }

  /**
   * Calls that are made while others are sent travel together, each pair once: a burst on a few
   * pairs is a few jobs a round trip, however many calls it is.
   */
  async #add(jobs: readonly Job[]): Promise<SentEvents> {
    const keys = new Set(jobs.map(keyOf));
    const bulk = (this.#gathered ??= newBulk());
    for (const job of jobs) bulk.jobs.set(keyOf(job), job);
    if (!this.#sending) void this.#sendGathered();
    const failure = await bulk.sent.promise;
    const left = failure ? [...keys].filter((key) => bulk.jobs.has(key)).length : 0;
    if (failure && left > 0) {
      const { cause } = failure;
      const notSent = `${left} of ${keys.size} gift events were not sent`;
      throw new GiftEventsNotSentError(`${notSent}: ${describeError(cause)}`, { cause });
    }
    return { jobs: keys.size };
  }

  /** What gathers behind a bulk that fails fails with it: it would only wait for the same queue. */
  async #sendGathered(): Promise<void> {
    this.#sending = true;
    for (let bulk = this.#takeGathered(); bulk; bulk = this.#takeGathered()) {
      try {
        await this.#send(bulk);
        bulk.sent.resolve(null);
      } catch (cause) {
        bulk.sent.resolve({ cause });
        this.#takeGathered()?.sent.resolve({ cause });
      }
    }
    this.#sending = false;
  }

  #takeGathered(): Bulk | undefined {
    const bulk = this.#gathered;
    this.#gathered = undefined;
    return bulk;
  }

  /** Takes from the bulk what is sent. */
  async #send({ jobs }: Bulk): Promise<void> {
    while (jobs.size > 0) {
      // BullMQ's PostgreSQL backend never answers a call that comes after its close.
      if (this.#isClosed) throw new Error('the client is closed');
      await this.#open.connected();
      const entries = Array.from(jobs.entries().take(BULK_JOBS_MAX));
      await this.#open.queue.addBulk(entries.map(([, job]) => job));
      for (const [key] of entries) jobs.delete(key);
    }
  }
}

/** Jobs that leave together. */
interface Bulk {
  /** Those that are not sent yet; no more are added once the first ones are. */
  readonly jobs: Map<JobKey, Job>;
  /** Resolves to why some could not be sent, or to null. */
  readonly sent: PromiseWithResolvers<{ readonly cause: unknown } | null>;
}

function newBulk(): Bulk {
  return { jobs: new Map(), sent: Promise.withResolvers() };
}

/** Jobs of one key are one job. */
type JobKey = string | Job;

function keyOf(job: Job): JobKey {
  return job.opts.deduplication?.id ?? job;
}

function changed(name: GiftEventName, pairs: Iterable<PairInput>): ChangedPair[] {
  return Array.from(pairs, (pair) => ({ name, pair }));
}

interface Job {
  readonly name: GiftEventName;
  readonly data: unknown;
  readonly opts: JobsOptions;
}

/** Jittered, so that jobs which failed together do not come back together. */
const RETRY: JobsOptions = {
  attempts: 10,
  backoff: { type: 'exponential', delay: 500, jitter: 0.5 },
};

/**
 * Of BullMQ's ways to deduplicate, only `keepLastIfActive` never loses an event that comes while
 * a job of the same id is active. It keeps only the last data, so the data is nothing but the
 * pair, and the id is the pair alone: whatever happened to it, the answer is the same sum.
 */
function pairJob(name: GiftEventName, pair: PairInput): Job {
  const data = { version: 1, affected: [pairToJson(pair)] };
  const id = `${pair.personId}-${pair.occasionId}`;
  return { name, data, opts: { ...RETRY, deduplication: { id, keepLastIfActive: true } } };
}

/** Ids as JSON numbers where those hold them exactly, as strings beyond. */
function pairToJson(pair: PairInput) {
  return { personId: idToJson(pair.personId), occasionId: idToJson(pair.occasionId) };
}

function idToJson(id: number | string | bigint): number | string {
  // A number beyond 2^53 may be a rounded id of another row: the contract refuses it as it is.
  if (typeof id === 'number') return id;
  const asNumber = Number(id);
  return Number.isSafeInteger(asNumber) && String(asNumber) === String(id) ? asNumber : String(id);
}
