import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { repairCommand } from '../src/commands/repair.ts';
import type { Pair } from '../src/events/contract.ts';
import { sweepChunk } from '../src/recalculation/sweep.ts';
import { beginSweep, lastSweeps, unfinishedSweep } from '../src/recalculation/sweep-record.ts';
import { assignBehindTriggers, seedPairs, wrongTotals } from './support/budgets.ts';
import { runCommand } from './support/run-command.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

let database: TestDatabase;
let pairs: Pair[];

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.close();
});
beforeEach(async () => {
  await database.pool.query(
    'truncate persons, occasions, gifts, recalculation_failures, budget_sweeps cascade',
  );
  await database.pool.query('truncate pending_recalculations');
  pairs = await seedPairs(database.pool, 3, 2);
});

const drift = async (pair: Pair, amount: string) =>
  await assignBehindTriggers(database.pool, pair, amount);
const repair = async (...args: string[]) =>
  await runCommand(repairCommand, database, ['repair', ...args]);
const name = ({ personId, occasionId }: Pair): string =>
  `person ${personId}, occasion ${occasionId}`;

describe('repair', () => {
  it('tells what was stored and what is right, and finds nothing the second time', async () => {
    await drift(pairs[1]!, '5.00');
    await drift(pairs[4]!, '6.50');
    const first = await repair();
    expect(first).toEqual({
      out:
        `repaired  ${name(pairs[1]!)}: stored 0.00, right 5.00\n` +
        `repaired  ${name(pairs[4]!)}: stored 0.00, right 6.50\n` +
        '6 budgets checked, 2 drifted, 2 repaired\n',
      err: '',
      exitCode: 0,
    });
    expect(await wrongTotals(database.pool)).toEqual([]);
    expect(await repair()).toEqual({
      out: '6 budgets checked, 0 drifted, 0 repaired\n',
      err: '',
      exitCode: 0,
    });
  });

  it('says of a sum that cannot be stored why, and exits with 1', async () => {
    await drift(pairs[0]!, '99999999.99');
    await drift(pairs[0]!, '1.00');
    const { out, exitCode } = await repair();
    expect(out).toBe(
      `failed    ${name(pairs[0]!)}: stored 0.00, right 100000000.99 ` +
        '(the sum 100000000.99 does not fit budget_spent, a numeric(10,2))\n' +
        '6 budgets checked, 1 drifted, 0 repaired\n',
    );
    expect(exitCode).toBe(1);
  });

  it('as JSON: an object to a line, the sweep last', async () => {
    await drift(pairs[2]!, '5.00');
    const { out } = await repair('--format', 'json');
    const [finding, sweep] = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown);
    expect(finding).toMatchObject({ ...pairs[2], stored: '0.00', right: '5.00' });
    expect(sweep).toMatchObject({ mode: 'repair', checked: 6, drifted: 1, repaired: 1 });
  });

  it('goes on with a repair that was killed, and tells what that one found too', async () => {
    await drift(pairs[0]!, '1.00');
    await drift(pairs[5]!, '2.00');
    await beginSweep(database.worker.pool, 'repair', 0);
    const { id, startedAt } = (await unfinishedSweep(database.worker.pool))!;
    await sweepChunk(database.worker.pool, id, 1);
    const { out, err } = await repair();
    const since = `begun at ${startedAt.toISOString()}, 1 budgets checked`;
    expect(err).toBe(`going on with the repair sweep ${since}\n`);
    expect(out).toBe(
      `repaired  ${name(pairs[0]!)}: stored 0.00, right 1.00\n` +
        `repaired  ${name(pairs[5]!)}: stored 0.00, right 2.00\n` +
        '6 budgets checked, 2 drifted, 2 repaired\n',
    );
    expect(await lastSweeps(database.worker.pool, 10)).toHaveLength(1);
  });

  it('does not take the end of a sweep that only reports for a repair', async () => {
    await drift(pairs[0]!, '1.00');
    await beginSweep(database.worker.pool, 'report', 0);
    await sweepChunk(database.worker.pool, (await unfinishedSweep(database.worker.pool))!.id, 1);
    const { out } = await repair();
    expect(out).toBe(
      `repaired  ${name(pairs[0]!)}: stored 0.00, right 1.00\n` +
        '6 budgets checked, 1 drifted, 1 repaired\n',
    );
  });

  it('interrupted, says how to go on and exits with 130', async () => {
    for (const pair of pairs) await drift(pair, '1.00');
    const stopAtOnce = (interrupt: AbortController): void => interrupt.abort();
    await beginSweep(database.worker.pool, 'repair', 0);
    await sweepChunk(database.worker.pool, (await unfinishedSweep(database.worker.pool))!.id, 2);
    const { err, exitCode } = await runCommand(repairCommand, database, ['repair'], stopAtOnce);
    expect(err).toContain('interrupted: run it again to go on from here');
    expect(exitCode).toBe(130);
  });
});
