import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  changesAnAssignment,
  createsTheBudget,
  deletesTheBudget,
  recalculation,
  replacesTheBudget,
} from './actors.ts';
import { type Harness, openHarness, ordersOf, violations, wrongAtRest } from './harness.ts';
import { canAlwaysSeeEachOther } from './schedule.ts';

let harness: Harness;

beforeAll(async () => {
  harness = await openHarness();
});
afterAll(async () => {
  await harness.close();
});

describe('two recalculations and one writer, in every order that the locks allow', () => {
  it.each([changesAnAssignment, createsTheBudget, deletesTheBudget, replacesTheBudget])(
    'that $does: nothing stale, no change lost, no recalculation waits',
    async (writer) => {
      const all = ordersOf(harness, recalculation, [writer], canAlwaysSeeEachOther);
      expect(all).toHaveLength(1_575);
      expect(await violations(harness, recalculation, [writer], all)).toEqual([]);
      expect(await wrongAtRest(harness)).toBe(0);
    },
    120_000,
  );
});
