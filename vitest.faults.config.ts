import { defineConfig } from 'vitest/config';

/** The long fault suite: one file at a time, because each loads the machine. */
export default defineConfig({
  test: {
    include: ['test/faults/**/*.fault.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    // What was measured is for people: printed as it is, without a heading for every line.
    disableConsoleIntercept: true,
  },
});
