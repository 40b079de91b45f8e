import { defineConfig } from 'vitest/config';

/** What could be otherwise on another PostgreSQL: SQL, plans, locks, privileges, the queue in it. */
export default defineConfig({
  test: {
    include: [
      'test/schema/*.test.ts',
      'test/{recalculate,recalculation-plans,pick-marks,catch-up,sweep,repair,failures}.test.ts',
      'test/{reader,reader-plans,reader-freshness,freshness,verify,explain}.test.ts',
      'test/{worker,schema-watch}.test.ts',
      'test/interleavings/one-writer.test.ts',
      'test/property/*.test.ts',
      'test/deploy/grants.test.ts',
    ],
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 3,
  },
});
