import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  changesAnAssignment,
  createsTheBudget,
  deletesTheBudget,
  recalculation,
} from './actors.ts';
import { type Harness, openHarness, ordersOf, violations, wrongAtRest } from './harness.ts';
import { cannotSeeEachOther } from './schedule.ts';

let harness: Harness;

beforeAll(async () => {
  harness = await openHarness();
});
afterAll(async () => {
  await harness.close();
});

/** All 103,950 orders would be; those left out differ from one of these in nothing visible. */
const ORDERS = 8_570;

describe('two recalculations and two writers, in every order that somebody could tell apart', () => {
  it.each([createsTheBudget, deletesTheBudget])(
    'one changes an assignment, one $does: nothing stale, no change lost, no recalculation waits',
    async (other) => {
      const writers = [changesAnAssignment, other];
      const all = ordersOf(harness, recalculation, writers, cannotSeeEachOther);
      expect(all).toHaveLength(ORDERS);
      expect(await violations(harness, recalculation, writers, all)).toEqual([]);
      expect(await wrongAtRest(harness)).toBe(0);
    },
    300_000,
  );
});
