import { closestMatch } from 'leven';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

/** The settings, validated and frozen. */
export type Config = Readonly<{
  /** Where PostgreSQL is; without it the embedded one is used. */
  databaseUrl: string | undefined;
  /** Where Redis is; without it the queue lives in PostgreSQL. */
  redisUrl: string | undefined;
  /** What stands before PostgreSQL: nothing, or a pooler in transaction mode. */
  pooler: 'none' | 'transaction';
  /** Where the embedded PostgreSQL keeps its data. */
  embeddedDirectory: string;
  /** The address that the pages listen on; beyond loopback only with credentials. */
  dashboardHost: string;
  /** The port of the pages; 0 for any free one. */
  dashboardPort: number;
  /** Who may see the pages; both or none of the two. */
  dashboardUser: string | undefined;
  dashboardPassword: string | undefined;
  /** Whether the pages only show, and change nothing. */
  dashboardReadOnly: boolean;
  logLevel: string;
  /** How many jobs a worker has under way at once. */
  workerConcurrency: number;
  /** The most pairs of one recalculation. */
  batchPairsMax: number;
  /** How long a stopping worker lets its jobs finish, in milliseconds. */
  drainTimeoutMs: number;
  /** How soon catch-up looks for marks again while there are some, in milliseconds. */
  catchUpPollMinMs: number;
  /** The same while there are none. */
  catchUpPollMaxMs: number;
  /** How long a mark is left to its event where events are arriving, in milliseconds. */
  catchUpGraceMs: number;
  /** How often every stored total is compared with its sum, in milliseconds. */
  sweepIntervalMs: number;
  /** What such a sweep does with drift: report it, or repair it too; off for no sweeps. */
  sweepMode: 'off' | 'report' | 'repair';
}>;

/** A setting that is missing, malformed or unknown; the message names each. */
export class ConfigError extends Error {
  readonly code = 'CONFIG_INVALID';
  override readonly name = 'ConfigError';
}

const PREFIX = 'GIFT_BUDGETS_';

const wholeNumber = (min: number, max: number, unset: number) =>
  z
    .string()
    .regex(/^[0-9]+$/)
    .transform(Number)
    .refine((value) => value >= min && value <= max)
    .default(unset)
    .describe(`a whole number from ${min} to ${max}`);

const serverUrl = (...protocols: string[]) =>
  z
    .string()
    .refine((text) => URL.canParse(text) && protocols.some((name) => text.startsWith(`${name}//`)))
    .optional()
    .describe(`a URL that begins with ${protocols.map((name) => `${name}//`).join(' or ')}`);

/** How many characters a password has at least. */
const PASSWORD_MIN = 12;

/** What each setting may be, and what it is unless set. */
export const settings = {
  DATABASE_URL: serverUrl('postgres:', 'postgresql:'),
  REDIS_URL: serverUrl('redis:', 'rediss:'),
  GIFT_BUDGETS_POOLER: z
    .enum(['none', 'transaction'])
    .default('none')
    .describe('one of none and transaction'),
  GIFT_BUDGETS_EMBEDDED_DIRECTORY: z.string().min(1).optional().describe('a directory'),
  GIFT_BUDGETS_DASHBOARD_HOST: z.string().min(1).default('127.0.0.1').describe('an address'),
  GIFT_BUDGETS_DASHBOARD_PORT: wholeNumber(0, 65_535, 3_000),
  GIFT_BUDGETS_DASHBOARD_USER: z
    .string()
    .regex(/^[^:\p{Cc}]+$/u)
    .optional()
    .describe('a name without a colon'),
  GIFT_BUDGETS_DASHBOARD_PASSWORD: z
    .string()
    .regex(/^\P{Cc}+$/u)
    .min(PASSWORD_MIN)
    .optional()
    .describe(`a password of at least ${PASSWORD_MIN} characters`),
  GIFT_BUDGETS_DASHBOARD_READ_ONLY: z
    .enum(['true', 'false'])
    .default('false')
    .describe('true or false'),
  GIFT_BUDGETS_LOG_LEVEL: z
    .enum(['debug', 'info', 'warn', 'error', 'silent'])
    .default('info')
    .describe('one of debug, info, warn, error and silent'),
  GIFT_BUDGETS_WORKER_CONCURRENCY: wholeNumber(1, 2_000, 200),
  GIFT_BUDGETS_BATCH_PAIRS_MAX: wholeNumber(1, 500, 500),
  GIFT_BUDGETS_DRAIN_TIMEOUT_MS: wholeNumber(0, 600_000, 10_000),
  GIFT_BUDGETS_CATCH_UP_POLL_MIN_MS: wholeNumber(1, 60_000, 10),
  GIFT_BUDGETS_CATCH_UP_POLL_MAX_MS: wholeNumber(1, 60_000, 100),
  GIFT_BUDGETS_CATCH_UP_GRACE_MS: wholeNumber(0, 60_000, 250),
  GIFT_BUDGETS_SWEEP_INTERVAL_MS: wholeNumber(1_000, 30 * 86_400_000, 3_600_000),
  GIFT_BUDGETS_SWEEP_MODE: z
    .enum(['off', 'report', 'repair'])
    .default('repair')
    .describe('one of off, report and repair'),
};

export type SettingName = keyof typeof settings;

export const SETTING_NAMES = Object.keys(settings) as SettingName[];
/** Of these the password is secret. */
export const URL_NAMES: readonly SettingName[] = ['DATABASE_URL', 'REDIS_URL'];

/**
 * Reads the settings from the environment. Empty ones count as not set.
 *
 * @throws {ConfigError} that names every setting that is malformed or unknown, all at once.
 */
export function loadConfig(env: NodeJS.ProcessEnv): Config {
  const problems = Object.keys(env).flatMap((name) => describeUnknown(name, env));
  const values: Partial<Record<SettingName, unknown>> = {};
  for (const name of SETTING_NAMES) {
    const given = env[name] === '' ? undefined : env[name];
    const result = settings[name].safeParse(given);
    if (result.success) values[name] = result.data;
    else problems.push(`${name}: expected ${settings[name].description}, got ${show(name, given)}`);
  }
  if (env.NODE_ENV === 'production' && values.DATABASE_URL === undefined) {
    problems.push('DATABASE_URL: expected in production (NODE_ENV=production), got nothing');
  }
  if (values.GIFT_BUDGETS_POOLER === 'transaction' && values.REDIS_URL === undefined) {
    problems.push(
      'REDIS_URL: expected with GIFT_BUDGETS_POOLER=transaction, got nothing: ' +
        'a queue in PostgreSQL listens on a connection of its own, which such a pooler has none of',
    );
  }
  problems.push(...describeHalfCredentials(values));
  if (problems.length > 0) throw new ConfigError(problems.join('\n'));
  return toConfig(values as SettingValues, env);
}

type SettingValues = { [Name in SettingName]: z.output<(typeof settings)[Name]> };

function toConfig(values: SettingValues, env: NodeJS.ProcessEnv): Config {
  return Object.freeze({
    databaseUrl: values.DATABASE_URL,
    redisUrl: values.REDIS_URL,
    pooler: values.GIFT_BUDGETS_POOLER,
    embeddedDirectory: values.GIFT_BUDGETS_EMBEDDED_DIRECTORY ?? stateDirectory(env),
    dashboardHost: values.GIFT_BUDGETS_DASHBOARD_HOST,
    dashboardPort: values.GIFT_BUDGETS_DASHBOARD_PORT,
    dashboardUser: values.GIFT_BUDGETS_DASHBOARD_USER,
    dashboardPassword: values.GIFT_BUDGETS_DASHBOARD_PASSWORD,
    dashboardReadOnly: values.GIFT_BUDGETS_DASHBOARD_READ_ONLY === 'true',
    logLevel: values.GIFT_BUDGETS_LOG_LEVEL,
    workerConcurrency: values.GIFT_BUDGETS_WORKER_CONCURRENCY,
    batchPairsMax: values.GIFT_BUDGETS_BATCH_PAIRS_MAX,
    drainTimeoutMs: values.GIFT_BUDGETS_DRAIN_TIMEOUT_MS,
    catchUpPollMinMs: values.GIFT_BUDGETS_CATCH_UP_POLL_MIN_MS,
    catchUpPollMaxMs: values.GIFT_BUDGETS_CATCH_UP_POLL_MAX_MS,
    catchUpGraceMs: values.GIFT_BUDGETS_CATCH_UP_GRACE_MS,
    sweepIntervalMs: values.GIFT_BUDGETS_SWEEP_INTERVAL_MS,
    sweepMode: values.GIFT_BUDGETS_SWEEP_MODE,
  });
}

/** Root keeps state where other users may enter: PostgreSQL does not run as root. */
function stateDirectory(env: NodeJS.ProcessEnv): string {
  if (process.getuid?.() === 0) return '/var/lib/gift-budgets/postgres';
  const state = env.XDG_STATE_HOME || join(homedir(), '.local', 'state');
  return join(state, 'gift-budgets', 'postgres');
}

function describeHalfCredentials(values: Partial<Record<SettingName, unknown>>): string[] {
  const [user, password] = [
    'GIFT_BUDGETS_DASHBOARD_USER',
    'GIFT_BUDGETS_DASHBOARD_PASSWORD',
  ] as const;
  const missing = [user, password].filter((name) => values[name] === undefined);
  // A malformed one is told already.
  if (missing.length !== 1 || !(missing[0]! in values)) return [];
  const [given] = [user, password].filter((name) => name !== missing[0]);
  return [`${missing[0]}: expected as ${given} is set, got nothing`];
}

/** Typing errors further away than this are not guessed at. */
const OWN_DISTANCE_MAX = 6;
const URL_DISTANCE_MAX = 2;

/** Says what is wrong with the name of a variable: nothing, or one problem. */
function describeUnknown(name: string, env: NodeJS.ProcessEnv): string[] {
  if (SETTING_NAMES.includes(name as SettingName) || !env[name]) return [];
  const upperCase = name.toUpperCase();
  if (upperCase.startsWith(PREFIX)) {
    const nearest = closestMatch(upperCase, SETTING_NAMES, { maxDistance: OWN_DISTANCE_MAX });
    const hint = nearest ? `did you mean ${nearest}?` : `there are ${SETTING_NAMES.join(', ')}`;
    return [`${name}: no such setting; ${hint}`];
  }
  // A variable of others may well be called nearly so. But where ours is not set, a typing error
  // would silently lead to the embedded database, or away from Redis.
  const nearest = closestMatch(upperCase, URL_NAMES, { maxDistance: URL_DISTANCE_MAX });
  return nearest && !env[nearest] ? [`${name}: no such setting; did you mean ${nearest}?`] : [];
}

/** The value as it was given; of a URL no more than its beginning, for it may hold a password. */
function show(name: SettingName, value: string | undefined): string {
  if (name === 'GIFT_BUDGETS_DASHBOARD_PASSWORD') return 'another (not shown)';
  if (value === undefined || !URL_NAMES.includes(name)) return JSON.stringify(value);
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(value)?.[0];
  if (!scheme) return 'something else (not shown, it may be secret)';
  if (URL.canParse(value)) return `one that begins with ${scheme}`;
  return `${scheme}… that is no URL (are special characters of the password written as %40 and so on?)`;
}
