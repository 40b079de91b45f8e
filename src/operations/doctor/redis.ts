import type { Redis } from 'ioredis';
import { describeError } from '../../describe-error.ts';
import { askRedis, describeEviction, isEvicting, readEvictionPolicy } from '../redis-check.ts';
import { error, type Finding, ok, orOk, warning } from './finding.ts';
import { judgeClock } from './server.ts';

/** As in `redis-cli -u "$REDIS_URL"`, so that no password is written out. */
const CLI = 'redis-cli -u "$REDIS_URL"';
const LATE = 'Totals still become right, by their marks, only some hundred milliseconds later.';

/** BullMQ refuses older ones, and warns of those below the second. */
const [REDIS_MIN, REDIS_RECOMMENDED] = [5, 6.2];

/** A queue in Redis: reached, of a version that BullMQ works with, and not one that loses jobs. */
export async function checkRedis(
  url: string,
  differenceMsMax: number,
  now: () => number = Date.now,
): Promise<readonly Finding[]> {
  try {
    return await askRedis(url, async (redis) => {
      const info = parseInfo(await redis.info());
      return [
        ...judgeRedisVersion(info.get('redis_version')),
        ...judgeRole(info),
        judgeEviction(await readEvictionPolicy(redis)),
        ...(await judgePersistence(redis, info)),
        ...judgeMemory(info),
        await checkRedisClock(redis, differenceMsMax, now),
      ];
    });
  } catch (cause) {
    return [
      error(`Redis cannot be asked: ${describeError(cause)}`, {
        why: `${LATE} Events wait with those who send them.`,
        todo: 'Is it running, and is REDIS_URL right?',
        shell: [`${CLI} ping`],
      }),
    ];
  }
}

/** What INFO says, by name. */
export type RedisInfo = ReadonlyMap<string, string>;

export function parseInfo(text: string): RedisInfo {
  const lines = text.split('\r\n').filter((line) => /^\w+:/.test(line));
  return new Map(
    lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  );
}

export function judgeRedisVersion(version: string | undefined): readonly Finding[] {
  if (version === undefined) return [];
  const number = Number(/^\d+(\.\d+)?/.exec(version)?.[0]);
  if (number >= REDIS_RECOMMENDED) return [ok(`Redis ${version}`)];
  const why = `The queue needs Redis ${REDIS_MIN}, and should have ${REDIS_RECOMMENDED} or later.`;
  const tell = number < REDIS_MIN ? error : warning;
  return [tell(`Redis ${version} is old`, { why, todo: 'Upgrade Redis.' })];
}

function judgeRole(info: RedisInfo): Finding[] {
  if (info.get('role') !== 'slave') return [];
  return [
    error('this Redis is a replica', {
      why: `It takes no jobs. ${LATE}`,
      todo: `Let REDIS_URL name its master, ${info.get('master_host')}:${info.get('master_port')}.`,
    }),
  ];
}

function judgeEviction(policy: string | null): Finding {
  if (policy === null) {
    return warning('Redis does not tell whether it evicts keys', {
      why: `One that does loses jobs when its memory is full. ${LATE}`,
      todo: 'Where it is set up, see that maxmemory-policy is noeviction.',
    });
  }
  if (!isEvicting(policy)) return ok('Redis does not evict keys (noeviction)');
  return error(describeEviction(policy), {
    why: `Jobs are lost then. ${LATE}`,
    todo: 'Of a hosted one it is set where it is set up. Otherwise:',
    shell: [`${CLI} config set maxmemory-policy noeviction`, `${CLI} config rewrite`],
  });
}

/** The value, or null where the server does not say. */
async function readConfig(redis: Redis, name: string): Promise<string | null> {
  try {
    const [, value] = (await redis.config('GET', name)) as string[];
    return value ?? null;
  } catch {
    return null;
  }
}

const RESTART = `A restart of Redis loses jobs. ${LATE}`;

async function judgePersistence(redis: Redis, info: RedisInfo): Promise<readonly Finding[]> {
  const problems: Finding[] = [];
  const failing = ['aof_last_write_status', 'rdb_last_bgsave_status'].filter(
    (name) => (info.get(name) ?? 'ok') !== 'ok',
  );
  if (failing.length > 0) {
    problems.push(
      error(`Redis cannot write to its disk (${failing.join(', ')})`, {
        why: 'It takes no more jobs then, unless told otherwise.',
        todo: 'Is the disk full, or not writable? The log of Redis says; this tries again:',
        shell: [`${CLI} bgsave schedule`],
      }),
    );
  }
  if (info.get('aof_enabled') === '0') {
    const save = await readConfig(redis, 'save');
    problems.push(
      warning(
        save === ''
          ? 'Redis keeps nothing on its disk'
          : 'Redis writes snapshots now and then, and no append-only file',
        {
          why: save === '' ? RESTART : `${RESTART} Those since the last snapshot.`,
          todo: 'Of a hosted one it is set where it is set up. Otherwise:',
          shell: [`${CLI} config set appendonly yes`, `${CLI} config rewrite`],
        },
      ),
    );
  }
  return orOk(problems, 'Redis keeps its jobs over a restart (append-only file)');
}

const MEMORY_USED_MAX = 0.9;

/** Nothing is evicted, so one that is full refuses jobs. */
function judgeMemory(info: RedisInfo): Finding[] {
  const [used, most] = [Number(info.get('used_memory')), Number(info.get('maxmemory'))];
  if (!(most > 0) || used <= MEMORY_USED_MAX * most) return [];
  return [
    error(`Redis uses ${Math.round((100 * used) / most)} % of its memory (maxmemory)`, {
      why: `Once it is full it takes no more jobs. ${LATE}`,
      todo: 'See what fills it, and give it more:',
      shell: [`${CLI} --bigkeys`, `${CLI} config set maxmemory ${2 * most}`],
    }),
  ];
}

async function checkRedisClock(
  redis: Redis,
  differenceMsMax: number,
  now: () => number,
): Promise<Finding> {
  const askedAt = now();
  const [wholeSeconds, microseconds] = await redis.time();
  const tookMs = now() - askedAt;
  const at = Number(wholeSeconds) * 1_000 + Number(microseconds) / 1_000;
  return judgeClock('Redis', at - (askedAt + tookMs / 2), differenceMsMax + tookMs / 2);
}
