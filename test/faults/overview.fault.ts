import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { openApp, WITH_CREDENTIALS } from '../support/app.ts';
import { hasBrowser, openBrowser, openPage } from '../support/browser.ts';
import { eventually } from '../support/budgets.ts';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters } from './support/load.ts';
import { bareSender, describeQueues, openScene } from './support/scene.ts';

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

      const send = bareSender(scene.queue);
      const writers = startWriters(scene.database, scene.pairs, { send });
      const flood = Promise.all(
        Array.from({ length: JOBS }, async (_, at) => {
          await send([scene.pairs[at % scene.pairs.length]!]).catch(() => {});
        }),
      );
      for (const { page } of opened) {
        await eventually(
          async () => await figure(page, 'Events / s'),
          (shown) => Number(shown.replaceAll(',', '')) >= 10,
        );
        const before = await moment(page);
        await eventually(
          async () => await moment(page),
          (now) => now !== before,
        );
        expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(
          page.viewportSize()!.width,
        );
      }
      await flood;

      if (scene.redis !== null) {
        await scene.redis.stop();
        for (const { page } of opened) {
          await page.getByText('Something is wrong').waitFor();
          await page.getByRole('heading', { name: 'The queue does not answer' }).waitFor();
          expect(await figure(page, 'Jobs waiting')).toBe('?');
          // The marks go on: the lag is known, and stays short.
          expect(await figure(page, 'Lag')).toMatch(/^\d\.\d s$/);
        }
        await scene.redis.start();
      }
      const written = await writers.stop();
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

async function figure(page: Page, name: string): Promise<string> {
  const shown = page.locator('dl div', { has: page.getByText(name, { exact: true }) });
  return await shown.locator('dd').innerText();
}

async function moment(page: Page): Promise<string> {
  return await page.locator('[data-part=moment] time').innerText();
}
