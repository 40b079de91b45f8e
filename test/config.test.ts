import { expect, test } from 'vitest';
import { ConfigError, loadConfig } from '../src/config.ts';

test('without any setting the defaults hold', () => {
  const { embeddedDirectory, ...config } = loadConfig({});
  expect(config).toEqual({
    databaseUrl: undefined,
    redisUrl: undefined,
    pooler: 'none',
    dashboardHost: '127.0.0.1',
    dashboardPort: 3_000,
    dashboardUser: undefined,
    dashboardPassword: undefined,
    dashboardReadOnly: false,
    logLevel: 'info',
    workerConcurrency: 200,
    batchPairsMax: 500,
    drainTimeoutMs: 10_000,
    catchUpPollMinMs: 10,
    catchUpPollMaxMs: 100,
    catchUpGraceMs: 250,
    sweepIntervalMs: 3_600_000,
    sweepMode: 'repair',
  });
  expect(embeddedDirectory).toMatch(/gift-budgets\/postgres$/);
});

test('settings are taken as they are given, and cannot be changed afterwards', () => {
  const config = loadConfig({
    DATABASE_URL: 'postgresql://a:b@host/db',
    REDIS_URL: 'rediss://host',
    GIFT_BUDGETS_EMBEDDED_DIRECTORY: '/srv/budgets',
    GIFT_BUDGETS_DASHBOARD_PORT: '0',
    GIFT_BUDGETS_LOG_LEVEL: 'silent',
  });
  expect(config).toMatchObject({
    databaseUrl: 'postgresql://a:b@host/db',
    redisUrl: 'rediss://host',
    embeddedDirectory: '/srv/budgets',
    dashboardPort: 0,
    logLevel: 'silent',
  });
  expect(Object.isFrozen(config)).toBe(true);
});

test('an empty setting counts as not set, whatever its name', () => {
  const names = ['DATABASE_URL', 'REDIS_URL', 'GIFT_BUDGETS_LOG_LEVEL', 'GIFT_BUDGETS_NO_SUCH'];
  expect(loadConfig(Object.fromEntries(names.map((name) => [name, ''])))).toEqual(loadConfig({}));
});

test('everything that is wrong is told at once', () => {
  const wrong = {
    DATABASE_URL: 'mysql://host/db',
    REDIS_URL: 'localhost',
    GIFT_BUDGETS_DASHBOARD_PORT: '65536',
    GIFT_BUDGETS_LOG_LEVEL: 'loud',
    GIFT_BUDGETS_WORKER_CONCURRENCY: '0',
    GIFT_BUDGETS_BATCH_PAIRS_MAX: '501',
    GIFT_BUDGETS_DRAIN_TIMEOUT_MS: '1e3',
    GIFT_BUDGETS_CATCH_UP_POLL_MIN_MS: '-1',
    GIFT_BUDGETS_CATCH_UP_POLL_MAX_MS: '1.5',
    GIFT_BUDGETS_CATCH_UP_GRACE_MS: ' 1',
    GIFT_BUDGETS_NO_SUCH_SETTING_AT_ALL: 'x',
  };
  const lines = refusal(wrong).split('\n');
  expect(lines.map((line) => line.slice(0, line.indexOf(':'))).toSorted()).toEqual(
    Object.keys(wrong).toSorted(),
  );
  expect(lines).toContain(
    'GIFT_BUDGETS_DASHBOARD_PORT: expected a whole number from 0 to 65535, got "65536"',
  );
  expect(lines).toContain(
    'GIFT_BUDGETS_LOG_LEVEL: expected one of debug, info, warn, error and silent, got "loud"',
  );
});

test.each([
  ['GIFT_BUDGETS_LOGLEVEL', 'GIFT_BUDGETS_LOG_LEVEL'],
  ['gift_budgets_batch_pairs_max', 'GIFT_BUDGETS_BATCH_PAIRS_MAX'],
  ['GIFT_BUDGETS_DASHBORD_PORT', 'GIFT_BUDGETS_DASHBOARD_PORT'],
  ['DATABASE_URI', 'DATABASE_URL'],
  ['DATABSE_URL', 'DATABASE_URL'],
  ['database_url', 'DATABASE_URL'],
  ['REDIS_ULR', 'REDIS_URL'],
])('%s is refused: %s is meant', (given, meant) => {
  expect(refusal({ [given]: 'x' })).toBe(`${given}: no such setting; did you mean ${meant}?`);
});

test('what resembles no setting is refused with a list of those that there are', () => {
  expect(refusal({ GIFT_BUDGETS_COLOUR_OF_THE_WRAPPING: 'red' })).toMatch(
    /^GIFT_BUDGETS_COLOUR_OF_THE_WRAPPING: no such setting; there are .*GIFT_BUDGETS_LOG_LEVEL/,
  );
});

test("other programs' variables are left alone, also those that resemble ours", () => {
  const others = {
    REDIS_TLS_URL: 'x',
    DATABASE_POOL: 'x',
    MY_DATABASE_URL: 'x',
    GIFT_BUDGET: 'x',
    REDIS_URI: 'x',
    REDIS_URL: 'redis://host',
  };
  expect(loadConfig(others)).toEqual(loadConfig({ REDIS_URL: 'redis://host' }));
});

test.each([
  'mysql://user:s3cret@host/db',
  'mysql://user:p@s3cret@host/db',
  'postgres//user:s3cret@host/db',
  'postgres:user:s3cret@host/db',
  'postgres://user:s3cret@host:99999999/db',
  's3cret',
  'host=db password=s3cret',
  'http://host/db?password=s3cret',
])('a malformed URL is refused without its secrets: %s', (url) => {
  const message = refusal({ DATABASE_URL: url, REDIS_URL: url });
  expect(message).toContain('DATABASE_URL: expected a URL that begins with postgres:// or');
  expect(message).toContain('REDIS_URL: expected a URL that begins with redis:// or rediss://');
  expect(message).not.toContain('s3cret');
});

test('in production there must be a database', () => {
  expect(refusal({ NODE_ENV: 'production' })).toContain('DATABASE_URL: expected in production');
  const databaseUrl = 'postgres://host/db';
  expect(loadConfig({ NODE_ENV: 'production', DATABASE_URL: databaseUrl })).toMatchObject({
    databaseUrl,
  });
});

function refusal(env: NodeJS.ProcessEnv): string {
  try {
    loadConfig(env);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  throw new Error('it was accepted');
}
