import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { describeSettings, showSettings } from '../src/config-shown.ts';
import { runProgram } from './support/run-program.ts';

const SECRETS = {
  DATABASE_URL: 'postgres://app:s3cret%40@db.example:5432/budgets?password=s3cret&sslmode=require',
  REDIS_URL: 'rediss://:s3cret@redis.example:6380/2',
  GIFT_BUDGETS_DASHBOARD_USER: 'operator',
  GIFT_BUDGETS_DASHBOARD_PASSWORD: 's3cret and long',
};

test('config prints what is in effect, and hides what is secret', async () => {
  const { code, out, err } = await runProgram(['config', '--format', 'json'], SECRETS);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).not.toContain('s3cret');
  const settings = JSON.parse(out) as { setting: string; value: string; from: string }[];
  expect(settings).toHaveLength(describeSettings().length);
  expect(settings).toEqual(
    expect.arrayContaining([
      {
        setting: 'DATABASE_URL',
        value: 'postgres://app:***@db.example:5432/budgets?password=***&sslmode=***',
        from: 'environment',
      },
      { setting: 'REDIS_URL', value: 'rediss://:***@redis.example:6380/2', from: 'environment' },
      { setting: 'GIFT_BUDGETS_DASHBOARD_PASSWORD', value: '***', from: 'environment' },
      { setting: 'GIFT_BUDGETS_DASHBOARD_USER', value: 'operator', from: 'environment' },
      { setting: 'GIFT_BUDGETS_SWEEP_MODE', value: 'repair', from: 'default' },
    ]),
  );
});

test('without any setting it says what that means', () => {
  const shown = Object.fromEntries(showSettings({}).map(({ name, value }) => [name, value]));
  expect(shown).toMatchObject({
    DATABASE_URL: 'the embedded PostgreSQL',
    REDIS_URL: 'the queue is in PostgreSQL',
    GIFT_BUDGETS_EMBEDDED_DIRECTORY: expect.stringMatching(/gift-budgets\/postgres$/),
    GIFT_BUDGETS_DASHBOARD_PASSWORD: 'nothing',
    GIFT_BUDGETS_DASHBOARD_READ_ONLY: 'false',
  });
});

test('half of the credentials, or a short password, is refused without showing it', () => {
  expect(() => showSettings({ GIFT_BUDGETS_DASHBOARD_USER: 'operator' })).toThrow(
    'GIFT_BUDGETS_DASHBOARD_PASSWORD: expected as GIFT_BUDGETS_DASHBOARD_USER is set, got nothing',
  );
  const short = { GIFT_BUDGETS_DASHBOARD_USER: 'a', GIFT_BUDGETS_DASHBOARD_PASSWORD: 's3cret' };
  expect(() => showSettings(short)).toThrow(
    /^GIFT_BUDGETS_DASHBOARD_PASSWORD: expected a password of at least 12 characters, got another \(not shown\)$/,
  );
});

test('docs/operating.md has every setting, its default and what it may be', async () => {
  const doc = await readFile(new URL('../docs/operating.md', import.meta.url), 'utf8');
  const row = /^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$/gm;
  const documented = [...doc.matchAll(row)].map(([, name, unset, expected]) => ({
    name,
    expected,
    unset: unset === '—' ? null : unset,
  }));
  expect(documented).toEqual(describeSettings());
});
