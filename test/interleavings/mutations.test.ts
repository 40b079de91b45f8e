import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  changesAnAssignment,
  createsTheBudget,
  type MakeRecalculation,
  mutations,
  uniqueMarks,
  type Writer,
} from './actors.ts';
import { type Harness, openHarness, ordersOf, violations } from './harness.ts';
import { canAlwaysSeeEachOther } from './schedule.ts';

let harness: Harness;

beforeAll(async () => {
  harness = await openHarness();
});
afterAll(async () => {
  await harness.close();
});

const LOST = /stored .*, right .*, no mark/;

it.each(Object.keys(mutations))(
  'the orders catch: %s',
  async (mutation) => {
    const make = mutations[mutation]!;
    const caught = await lostBy(make, changesAnAssignment);
    if (!caught) expect(await lostBy(make, createsTheBudget)).toMatch(LOST);
  },
  120_000,
);

it('the orders catch: a unique mark per pair with DO NOTHING', async () => {
  await harness.database.pool.query(uniqueMarks.schema);
  expect(await lostBy(uniqueMarks.recalculation, changesAnAssignment)).toMatch(LOST);
}, 120_000);

/** The first order that leaves a wrong total without a mark, and what it left. */
async function lostBy(make: MakeRecalculation, writer: Writer): Promise<string | undefined> {
  const all = ordersOf(harness, make, [writer], canAlwaysSeeEachOther);
  const isLost = (what: string): boolean => LOST.test(what);
  const found = await violations(harness, make, [writer], all, (soFar) => soFar.some(isLost));
  return found.find(isLost);
}
