import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { openGiftEventsQueue } from '../../src/queue.ts';
import { openApp, WITH_CREDENTIALS } from '../support/app.ts';
import { hasBrowser, openBrowser, openPage } from '../support/browser.ts';
import { assign, eventually } from '../support/budgets.ts';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters } from './support/load.ts';
import { bareSender, describeQueues, openScene, type Scene, slowDown } from './support/scene.ts';

const JOBS = 5_000;
const LOOKS = [
  { width: 1_200, colorScheme: 'light' },
  { width: 375, colorScheme: 'dark' },
] as const;

describe.skipIf(!hasBrowser)('the overview in a browser', () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await openBrowser();
  });
  afterAll(async () => {
    await browser.close();
  });

  describeQueues(`with ${JOBS} jobs waiting and writers at work`, (backend) => {
    it('is readable and goes on telling; degraded while the queue is away, and well again', async () => {
      const scene = await openScene(backend);
      const app = await openApp(scene.database, scene.queue, WITH_CREDENTIALS);
      onTestFinished(async () => await app.stop());
      const opened = await Promise.all(LOOKS.map(async (look) => await openPage(browser, look)));
      for (const { page } of opened) await page.goto(app.url);
      await fillQueue(scene);
      const writers = startWriters(scene.database, scene.pairs, { send: bareSender(scene.queue) });
      await Promise.all(opened.map(async ({ page }) => await expectLively(page)));

      if (scene.redis !== null) {
        await scene.redis.stop();
        for (const { page } of opened) {
          await page.getByText('Something is wrong').waitFor();
          await page.getByRole('heading', { name: 'The queue does not answer' }).waitFor();
          expect(await figure(page, 'Jobs waiting')).toBe('?');
          // The marks go on: how far behind the totals are is known.
          expect(await figure(page, 'Lag')).toMatch(/^\d+\.?\d* s$/);
        }
        await scene.redis.start();
      }
      const written = await writers.stop();
      await slowDown(scene.database.pool, 0);
      await expectAtRest(scene.database.pool, scene.queue, { name: 'watched', written });
      for (const { page, complaints } of opened) {
        await page.getByText('All is well').waitFor();
        await eventually(
          async () => await figure(page, 'Jobs waiting'),
          (shown) => shown === '0',
        );
        expect(complaints).toEqual([]);
      }
    }, 180_000);
  });
});

/** Thousands wait, and the page shows how they become fewer, in its width. */
async function expectLively(page: Page): Promise<void> {
  const waiting = async () => Number((await figure(page, 'Jobs waiting')).replaceAll(',', ''));
  const seen = await eventually(waiting, (jobs) => jobs > 1_000);
  const before = await moment(page);
  await eventually(waiting, (jobs) => jobs < seen);
  expect(await moment(page)).not.toBe(before);
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(
    page.viewportSize()!.width,
  );
}

/** With jobs that are not through for a while: one of their pairs takes its time. */
async function fillQueue({ database, queue, pairs }: Scene): Promise<void> {
  const slow = pairs[0]!;
  await assign(database.pool, slow, '1.00');
  const { personId, occasionId } = slow;
  await slowDown(database.pool, 1, `person_id = ${personId} and occasion_id = ${occasionId}`);
  const open = openGiftEventsQueue(queue, () => {});
  await open.connected();
  const jobs = Array.from({ length: JOBS }, (_, at) => ({
    name: 'gift.moved',
    data: { version: 1, affected: [pairs[at % pairs.length]!] },
  }));
  await open.queue.addBulk(jobs);
  await open.close();
}

async function figure(page: Page, name: string): Promise<string> {
  const shown = page.locator('dl div', { has: page.getByText(name, { exact: true }) });
  return await shown.locator('dd').innerText();
}

async function moment(page: Page): Promise<string> {
  return await page.locator('[data-part=moment] time').innerText();
}
