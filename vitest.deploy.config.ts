import { defineConfig } from 'vitest/config';

/** What deployers do: migrations on databases of all kinds, roles, the package. Takes minutes. */
export default defineConfig({
  test: {
    include: ['test/deploy/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: 240_000,
    hookTimeout: 240_000,
    fileParallelism: false,
    // What was measured is for people: printed as it is, without a heading for every line.
    disableConsoleIntercept: true,
  },
});
