import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { catchUpOnce } from '../../src/recalculation/catch-up.ts';
import { assign, markedPairs, seedPairs, spent } from '../support/budgets.ts';
import { createTestDatabase } from '../support/servers.ts';

it('every SQL example of docs/schema.md works, and the replaced view counts by its rule', async () => {
  const text = await readFile(new URL('../../docs/schema.md', import.meta.url), 'utf8');
  const examples = [...text.matchAll(/^```sql\n(.*?)^```/gms)].map(([, sql]) => sql!);
  expect(examples.length).toBeGreaterThan(3);
  const database = await createTestDatabase();
  const { pool } = database;
  const catchUp = { pool, pairsMax: 500, pollMinMs: 1, pollMaxMs: 1, graceMs: () => 0 };
  try {
    const [pair] = await seedPairs(pool, 1, 1);
    await assign(pool, pair!, '5.00');
    for (const example of examples) await pool.query(example);
    expect(await markedPairs(pool)).toContain('everything');
    while (await catchUpOnce(catchUp));
    expect(await spent(pool, pair!)).toBe('5.00');
    await pool.query('update gifts set returned = true');
    while (await catchUpOnce(catchUp));
    expect(await spent(pool, pair!)).toBe('0.00');
  } finally {
    await database.close();
  }
});
