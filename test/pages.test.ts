import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import { hideOwnFields } from '../src/operations/queue-board.ts';
import { openApp, WITH_CREDENTIALS } from './support/app.ts';
import { hasBrowser, openBrowser, openPage } from './support/browser.ts';
import { assign, countMarks, eventually, seedPairs, spent } from './support/budgets.ts';
import { createOwnRedis, freePort, isOnPath } from './support/outages.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

describe.skipIf(!hasBrowser)('in a browser', () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await openBrowser();
  });
  afterAll(async () => {
    await browser.close();
  });

  describeBackends('an operator', (open) => {
    it('logs in, sees what failed and why, retries it, and the total is right', async () => {
      const database = await createTestDatabase();
      const queue = await open(database);
      const [pair] = (await seedPairs(database.pool, 1, 1)) as [Pair];
      const app = await openApp(database, queue, WITH_CREDENTIALS);
      onTestFinished(async () => {
        await app.stop();
        await database.close();
      });
      await expectLockedOut(app.url);

      // On a phone in the dark with Redis, at a desk in the light without.
      const look =
        queue.backend === 'redis'
          ? ({ width: 375, colorScheme: 'dark' } as const)
          : ({ width: 1_200, colorScheme: 'light' } as const);
      const { page, complaints } = await openPage(browser, look);
      await page.goto(app.url);
      await page.getByText('All is well').waitFor();
      const background = await page.evaluate('getComputedStyle(document.body).backgroundColor');
      expect(background).toBe(
        look.colorScheme === 'light' ? 'rgb(246, 247, 246)' : 'rgb(18, 23, 20)',
      );

      const client = new GiftEventClient(queue);
      await assign(database.upstream.pool, pair, '99999999.99');
      const tooMuch = await assign(database.upstream.pool, pair, '5.00');
      // A job that meets catch-up at work on its pair would leave it to that, and complete.
      await eventually(
        () => countMarks(database.pool),
        (marks) => marks === 0,
      );
      await client.giftAssigned([pair]);
      await client.close();
      // The page learns of it by itself.
      await page.getByRole('heading', { name: '1 gift event failed' }).waitFor();
      await page.getByText(/budget_spent not stored .* 100000004\.99 does not fit/).waitFor();
      await page.locator('pre', { hasText: 'gift-budgets failures' }).waitFor();
      expect(await widthOf(page)).toBeLessThanOrEqual(look.width);

      await mendBehindTriggers(database, tooMuch, '-99999987.49');
      await page.getByRole('link', { name: 'Open its page' }).click();
      await page.getByText('UnrecoverableError').waitFor();
      await page.getByRole('button', { name: 'Retry all' }).click();
      await page.getByRole('button', { name: 'Confirm' }).click();
      await eventually(
        () => spent(database.pool, pair),
        (total) => total === '12.50',
      );
      await page.goto(app.url);
      await page.getByText('All is well').waitFor();
      expect(complaints).toEqual([]);
    });

    async function expectLockedOut(url: string): Promise<void> {
      const context = await browser.newContext();
      const page = await context.newPage();
      await expect(page.goto(url)).rejects.toThrow('ERR_INVALID_AUTH_CREDENTIALS');
      await context.close();
    }
  });

  it.skipIf(inject('redisUrl') === null || !isOnPath('redis-server'))(
    'the overview says that Redis is away, that it is back, and when the page itself is old',
    async () => {
      const redis = createOwnRedis(await freePort());
      await redis.start();
      const database = await createTestDatabase();
      const app = await openApp(database, redis.connection, WITH_CREDENTIALS);
      onTestFinished(async () => {
        await app.stop();
        await Promise.all([redis.stop(), database.close()]);
      });
      const { page, complaints } = await openPage(browser);
      await page.clock.install();
      await page.goto(app.url);
      await page.getByText('All is well').waitFor();
      await redis.stop();
      await page.getByText('Something is wrong').waitFor();
      await page.getByRole('heading', { name: 'The queue does not answer' }).waitFor();
      await page.locator('pre', { hasText: 'redis-cli -u "$REDIS_URL" ping' }).waitFor();
      expect(await page.title()).toBe('Something is wrong · gift-budgets');
      await redis.start();
      await page.getByText('All is well').waitFor();
      expect(complaints).toEqual([]);

      await page.route('**/overview', async (route) => await route.abort());
      await page.clock.fastForward(10_000);
      await page.getByText('s old: gift-budgets does not answer').waitFor();
      await page.unroute('**/overview');
      await page.getByRole('alert').waitFor({ state: 'hidden' });
    },
  );
});

/** Where no mark tells of it: the retry alone makes the total right. */
async function mendBehindTriggers(
  database: TestDatabase,
  assignment: string,
  amount: string,
): Promise<void> {
  const client = await database.pool.connect();
  await client.query(`begin; set local session_replication_role = 'replica'`);
  await client.query('update gift_persons set amount = $2 where id = $1', [assignment, amount]);
  await client.query('commit');
  client.release();
}

async function widthOf(page: Page): Promise<number> {
  return await page.evaluate('document.documentElement.scrollWidth');
}

it('the page of the queue shows ids, and no fields of others', () => {
  const affected = [{ personId: '1', occasionId: 2, name: 'Ada' }];
  expect(hideOwnFields({ version: 1, affected, notes: { of: 'Mom' }, source: 'x' })).toEqual({
    version: 1,
    affected: [{ personId: '1', occasionId: 2, name: '(not shown)' }],
    notes: '(not shown)',
    source: 'x',
  });
  expect(hideOwnFields('text')).toBe('text');
  expect(hideOwnFields(null)).toBeNull();
});
