import type { Socket } from 'node:net';
import {
  type BackendFactory,
  createRedisBackend,
  type JobJson,
  type JobType,
  raw2NextJobData,
  RedisQueueBackend,
} from 'bullmq';
import {
  describeUnreadable,
  findUnreadable,
  type StoredJob,
  withReplacements,
} from './unreadable-fields.ts';

/** The scripts that answer with the next job. */
const FETCHING = new Set(['moveToActive', 'moveToFinished', 'moveToDelayed']);

/** How a script of BullMQ answers with a job: its fields and values in turn, its id, two delays. */
type FetchedJob = [fields: string[], id: string, limitDelay: number, delayUntil: number];

/**
 * Takes the place of an active job whose key holds no hash: that key may be something else that
 * matters (the id of a job can be 'id', whose key is the counter of ids), so it is left alone.
 *
 * KEYS: active, stalled, the lock, the lock of the job instead, the key of the job instead.
 * ARGV: the id, the id instead, and the fields and values of the job instead.
 */
const REPLACE_ACTIVE = `
  redis.call('RENAME', KEYS[3], KEYS[4])
  redis.call('LREM', KEYS[1], 1, ARGV[1])
  redis.call('LPUSH', KEYS[1], ARGV[2])
  redis.call('SREM', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[5], unpack(ARGV, 3))`;

/**
 * BullMQ's Redis backend, for jobs that a foreign producer wrote as it should not. BullMQ throws
 * on such a job while it fetches it: the job never reaches the processor and never fails, it comes
 * back at every stall cycle, and lists that hold it cannot be shown.
 *
 * Here a job that cannot be read is made readable where it is stored, the raw text goes to its
 * log, and `defa`, BullMQ's own field for it, makes the worker fail it at once and for good with
 * the reason. Lists show such a job before a worker gets it, with the reason.
 */
export const createReadableRedisBackend: BackendFactory<RedisQueueBackend> = (...args) => {
  // The factory makes the connections, but no class other than its own.
  return Object.setPrototypeOf(
    createRedisBackend(...args),
    ReadableRedisBackend.prototype,
  ) as ReadableRedisBackend;
};

type Args<Method extends 'execCommand' | 'moveToActive' | 'moveToCompleted' | 'moveToFailed'> =
  Parameters<RedisQueueBackend[Method]>;

class ReadableRedisBackend extends RedisQueueBackend {
  override execCommand(...[client, command, args]: Args<'execCommand'>): unknown {
    writeTogether(client);
    const reply: unknown = super.execCommand(client, command, args);
    return FETCHING.has(command) ? this.makeReadable(reply as Promise<unknown>) : reply;
  }

  override async moveToActive(...args: Args<'moveToActive'>): Promise<unknown[]> {
    const [token] = args;
    const fetch = async (): Promise<unknown[]> => await super.moveToActive(...args);
    return await fetch().catch(async (error: Error) => await this.fetchAnyway(token, error));
  }

  override async moveToCompleted(...args: Args<'moveToCompleted'>) {
    const token = args[3];
    const finish = async () => await super.moveToCompleted(...args);
    return await finish().catch(async (error: Error) => await this.finishAnyway(token, error));
  }

  override async moveToFailed(...args: Args<'moveToFailed'>) {
    const token = args[3];
    const finish = async () => await super.moveToFailed(...args);
    return await finish().catch(async (error: Error) => await this.finishAnyway(token, error));
  }

  override async getJobData(jobId: string): Promise<JobJson | undefined> {
    const client = await this.client;
    const job = await client.hgetall(this.toKey(jobId)).catch(asWrongType);
    if (job === null) return jobJson(jobId, insteadOfWrongType(jobId));
    return Object.keys(job).length === 0 ? undefined : jobJson(jobId, job);
  }

  /** Only the ids are used of what the script answers, and it throws where a key holds no hash. */
  override async getJobs(
    types: JobType[],
    start?: number,
    end?: number,
    asc?: boolean,
  ): Promise<[string, string[]][][]> {
    const script = async () => await super.getJobs(types, start, end, asc);
    return await script().catch(async (error: Error) => {
      asWrongType(error);
      const ranges = await this.getRanges(types, start, end, asc);
      return ranges.map((ids) => ids.map((id): [string, string[]] => [id, []]));
    });
  }

  /** Cleans a fetched job before BullMQ parses it, in the reply and where it is stored. */
  private async makeReadable(replying: Promise<unknown>): Promise<unknown> {
    const reply = await replying;
    if (!isFetchedJob(reply)) return reply;
    const [fields, id, ...delays] = reply;
    const job = toObject(fields);
    const found = findUnreadable(job);
    if (found.length === 0) return reply;
    const client = await this.client;
    const removed = found.flatMap(({ field, replacement }) => (replacement === null ? field : []));
    for (const { field } of found) {
      await this.addLog(id, `${field}: ${job[field]!.slice(0, TEXT_LOGGED_MAX)}`);
    }
    if (removed.length > 0) await client.hdel(this.toKey(id), ...removed);
    const readable = { ...withReplacements(job, found), defa: describeUnreadable(found) };
    await client.hset(this.toKey(id), readable);
    return [Object.entries(readable).flat(), id, ...delays];
  }

  /**
   * A job whose fields or key the script itself trips over is active and locked by then, which is
   * how it is found. What else was done by the script stays done: Redis rolls nothing back.
   */
  private async fetchAnyway(token: string, error: Error): Promise<unknown[]> {
    if (error.name !== 'ReplyError') throw error;
    const client = await this.client;
    for (const id of await client.lrange(this.keys.active!, 0, -1)) {
      if ((await client.get(`${this.toKey(id)}:lock`)) !== token) continue;
      const job = await client.hgetall(this.toKey(id)).catch(asWrongType);
      const fetched: FetchedJob =
        job === null ? await this.replaceActive(id) : [Object.entries(job).flat(), id, 0, 0];
      return raw2NextJobData((await this.makeReadable(Promise.resolve(fetched))) as FetchedJob);
    }
    throw error;
  }

  /** The job itself is finished if its token locks another one: the next that the script fetched. */
  private async finishAnyway(token: string, error: Error) {
    return { result: await this.fetchAnyway(token, error), finishedOn: Date.now() };
  }

  private async replaceActive(id: string): Promise<FetchedJob> {
    const client = await this.client;
    const instead = `unreadable-${id}`;
    const fields = Object.entries(insteadOfWrongType(id)).flat();
    const [key, insteadKey] = [this.toKey(id), this.toKey(instead)];
    const keys = [this.keys.active, this.keys.stalled, `${key}:lock`, `${insteadKey}:lock`];
    client.defineCommand('giftBudgetsReplaceActive', { numberOfKeys: 5, lua: REPLACE_ACTIVE });
    const args = [...keys, insteadKey, id, instead, ...fields];
    await client.runCommand('giftBudgetsReplaceActive', args);
    return [fields, instead, 0, 0];
  }
}

/** The log of a job is for people to read, on a page. */
const TEXT_LOGGED_MAX = 10_000;

function isFetchedJob(reply: unknown): reply is FetchedJob {
  return Array.isArray(reply) && Array.isArray(reply[0]);
}

function toObject(fields: readonly string[]): StoredJob {
  const job: Record<string, string> = {};
  for (let at = 0; at < fields.length; at += 2) job[fields[at]!] = fields[at + 1]!;
  return job;
}

function jobJson(id: string, job: StoredJob): JobJson {
  const found = findUnreadable(job);
  const fields = Object.entries(withReplacements(job, found)).flat();
  const [json] = raw2NextJobData([fields, id]) as [JobJson];
  const reason = found.length > 0 ? describeUnreadable(found) : job.defa;
  return reason === undefined ? json : { ...json, failedReason: json.failedReason ?? reason };
}

function insteadOfWrongType(id: string): StoredJob {
  const reason = `unreadable job: the key of ${JSON.stringify(id)} holds no hash`;
  return { name: '', data: '{}', opts: '{}', timestamp: String(Date.now()), defa: reason };
}

/** @throws any error but Redis' "wrong kind of value", which becomes null. */
function asWrongType(error: Error): null {
  if (error.message.includes('WRONGTYPE')) return null;
  throw error;
}

/**
 * Holds back what is written until this turn of the event loop ends, so that the commands of jobs
 * which complete together leave in one write: a write each took a third of a busy worker's time
 * (6,600 events/s without this, 8,600 with it). Unlike auto-pipelining, which halves the
 * throughput, it changes nothing but the number of system calls.
 */
function writeTogether(client: unknown): void {
  const { stream } = client as { stream?: Socket }; // a cluster has several, behind others
  if (stream === undefined || stream.writableCorked > 0) return;
  stream.cork();
  process.nextTick(() => stream.uncork());
}
