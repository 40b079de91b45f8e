import {
  type IQueueBackend,
  type Job,
  type JobJson,
  type JobProgress,
  type JobsOptions,
  Worker,
} from 'bullmq';

/**
 * A job that fails in a way nobody foresaw (BullMQ could not write its completion, say) is tried
 * again this often. More would be a hot loop: a producer may have asked for a billion attempts.
 */
const ATTEMPTS = 20;
const BACKOFF = { type: 'exponential', delay: 200, jitter: 0.5 } as const;

/**
 * BullMQ's worker, that serves a job by its own options instead of its producer's. Those were
 * written far away, perhaps in another language; some that BullMQ does not check end in an error
 * inside the script that finishes the job, which then comes back at every stall cycle for ever
 * (`removeOnFail: null`), and others in a loop (`attempts: 1e9`) or a failure that nobody sees
 * (`removeOnFail: true`).
 */
export class GiftEventsWorker<Backend extends IQueueBackend, Connection> extends Worker<
  unknown,
  unknown,
  string,
  Backend,
  JobProgress,
  Connection
> {
  protected override createJob(json: JobJson, jobId: string): Job<unknown, unknown, string> {
    return super.createJob({ ...json, opts: ownOptions(json.opts) }, jobId);
  }

  /** BullMQ leaves a job whose scheduler it cannot renew as it is, active and never processed. */
  protected override async nextJobFromJobData(
    json?: JobJson,
    jobId?: string,
    token?: string,
  ): Promise<Job<unknown, unknown, string>> {
    const job = await super.nextJobFromJobData(json, jobId, token);
    if (job !== undefined || !json) return job;
    const { repeatJobKey: _, ...alone } = json;
    return await super.nextJobFromJobData(alone, jobId, token);
  }
}

function ownOptions(options: JobsOptions): JobsOptions {
  const { removeOnComplete: _, removeOnFail: __, telemetry, ...others } = options;
  return {
    ...others,
    ...(isReadableTrace(telemetry?.metadata) && { telemetry }),
    attempts: ATTEMPTS,
    backoff: BACKOFF,
  };
}

/** A worker that traces hangs on metadata that is not JSON. */
function isReadableTrace(metadata: unknown): boolean {
  try {
    const trace: unknown = typeof metadata === 'string' ? JSON.parse(metadata) : null;
    return typeof trace === 'object' && trace !== null;
  } catch {
    return false;
  }
}
