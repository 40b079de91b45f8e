import { existsSync } from 'node:fs';
import { type Browser, chromium, type Page } from 'playwright-core';
import { CREDENTIALS } from './app.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(
  (path) => existsSync(path),
);

export const hasBrowser = CHROMIUM !== undefined;

if (!hasBrowser) {
  const how =
    'no Chromium: the tests of the pages are skipped; "apt-get install chromium" to run them';
  if (process.env.REQUIRE_CHROMIUM === '1') throw new Error(`REQUIRE_CHROMIUM=1, but ${how}`);
  console.warn(how);
}

/** A browser without a window, and what it complains of. */
export async function openBrowser(): Promise<Browser> {
  // Root has no sandbox of Chromium's; the pages are our own.
  return await chromium.launch({ executablePath: CHROMIUM!, args: ['--no-sandbox'] });
}

export interface OperatorPage {
  readonly page: Page;
  /** Errors of scripts, and whatever the policy of the page kept from running. */
  readonly complaints: readonly string[];
}

/** A page as an operator has it who has logged in. */
export async function openPage(
  browser: Browser,
  options: { width?: number; colorScheme?: 'light' | 'dark' } = {},
): Promise<OperatorPage> {
  const { width = 1_200, colorScheme = 'light' } = options;
  const context = await browser.newContext({
    viewport: { width, height: 800 },
    colorScheme,
    httpCredentials: { username: CREDENTIALS.user, password: CREDENTIALS.password },
  });
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('pageerror', ({ message }) => complaints.push(message));
  page.on('console', (message) => {
    // bull-board asks Google for its font, which the policy rightly refuses.
    const isFont = message.text().includes('fonts.googleapis.com');
    if (message.type() === 'error' && !isFont) complaints.push(message.text());
  });
  return { page, complaints };
}
