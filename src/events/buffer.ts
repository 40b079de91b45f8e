import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { QueueConnection } from '../queue.ts';
import { ChangedPairs } from './changed-pairs.ts';
import { GiftEventClient } from './client.ts';

export interface GiftEventBufferOptions {
  /** The most pairs that wait to be sent, and that one transaction collects; 10,000 unless set. */
  readonly pairsMax?: number;
  /** Told why events were not sent, once for each try. */
  readonly onError?: (error: Error) => void;
}

/** How many pairs became what, since the buffer was made. */
export interface GiftEventCounts {
  /** Waiting to be sent. */
  readonly waiting: number;
  readonly sent: number;
  /** Not sent, because the queue did not take them. */
  readonly failed: number;
  /** Not sent, because too many were waiting already, or still were at the close. */
  readonly dropped: number;
  /** Not sent, because what was given names no pair. */
  readonly unnamed: number;
}

const PAIRS_MAX = 10_000;

/** Little enough at once that nothing else of the process waits for long: some 10 ms. */
const PAIRS_SENT_MAX = 200;

const CLOSE_TIMEOUT_MS = 2_000;

/**
 * Sends gift events beside an upstream's own work, which it never fails and never delays: whoever
 * gives it pairs goes on at once. It sends in the background, one round trip at a time, and while
 * that is under way others gather, each pair once.
 *
 * What cannot be sent is not tried again but counted: the change has left its mark in the database,
 * and catch-up is at it before a second try could be. So an outage of the queue costs neither memory
 * nor time, and the number of waiting pairs is bounded whatever happens.
 */
export class GiftEventBuffer {
  readonly #client: GiftEventClient;
  readonly #pairsMax: number;
  readonly #onError: (error: Error) => void;
  readonly #waiting: ChangedPairs;
  #sending: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #sent = 0;
  #failed = 0;

  constructor(connection: QueueConnection, options: GiftEventBufferOptions = {}) {
    this.#client = new GiftEventClient(connection);
    this.#pairsMax = options.pairsMax ?? PAIRS_MAX;
    this.#onError = options.onError ?? (() => {});
    this.#waiting = this.collect();
  }

  /**
   * Sends what the work names once it is done, so let the work be the whole transaction, its commit
   * too. Where it throws, nothing is sent: then nothing was committed.
   *
   * @returns what the work returns, without a wait for the sending.
   */
  async sendAfter<T>(work: (changed: ChangedPairs) => Promise<T>): Promise<T> {
    const changed = this.collect();
    const result = await work(changed);
    this.send(changed);
    return result;
  }

  /** A place to gather the pairs of one transaction; `send` it after the commit, or forget it. */
  collect(): ChangedPairs {
    return new ChangedPairs(this.#pairsMax);
  }

  /** Takes over what was collected, and returns at once. */
  send(changed: ChangedPairs): void {
    if (this.#closing) changed.dropRest();
    this.#waiting.addAll(changed);
    if (this.#waiting.size > 0) this.#sending ??= this.#sendWaiting();
  }

  counts(): GiftEventCounts {
    const { size, dropped, unnamed } = this.#waiting;
    return { waiting: size, sent: this.#sent, failed: this.#failed, dropped, unnamed };
  }

  /** Sends what is waiting, for 2 s at most, drops the rest, and closes the connection. */
  async close(): Promise<void> {
    await (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    const timer = new AbortController();
    const tooLate = sleep(CLOSE_TIMEOUT_MS, undefined, { signal: timer.signal }).catch(() => {});
    await Promise.race([this.#sending, tooLate]);
    this.#waiting.dropRest();
    await Promise.race([this.#client.close(), tooLate]);
    timer.abort();
  }

  /** Begins in a turn of its own: first goes whoever has just committed. */
  async #sendWaiting(): Promise<void> {
    await nextTurn();
    while (this.#waiting.size > 0) {
      const taken = this.#waiting.takeFirst(PAIRS_SENT_MAX);
      try {
        await this.#client.sendPairs(taken);
        this.#sent += taken.length;
      } catch (error) {
        this.#failed += taken.length;
        this.#tell(error as Error);
      }
    }
    this.#sending = undefined;
  }

  #tell(error: Error): void {
    try {
      this.#onError(error);
    } catch {
      // It is about events that were not sent, and would itself keep the rest from being sent.
    }
  }
}
