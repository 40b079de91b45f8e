import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { GiftEventClient } from '../src/events/client.ts';
import type { Pair } from '../src/events/contract.ts';
import { openGiftEventsQueue, type QueueConnection } from '../src/queue.ts';
import { openApp, type TestApp } from './support/app.ts';
import { assign, assignBehindTriggers, eventually, seedPairs } from './support/budgets.ts';
import { readMetrics } from './support/metrics.ts';
import { createTestDatabase, describeBackends, type TestDatabase } from './support/servers.ts';

describeBackends('/metrics', (open) => {
  let database: TestDatabase;
  let queue: QueueConnection;
  let pairs: Pair[];
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    queue = await open(database);
    pairs = await seedPairs(database.pool, 3, 1);
    await assignBehindTriggers(database.pool, pairs[2]!, '7.00');
    app = await openApp(database, queue, { GIFT_BUDGETS_SWEEP_INTERVAL_MS: '3000' });
  });
  afterAll(async () => {
    await app.stop();
    await database.close();
  });

  const read = async () => await readMetrics(app.url);
  const becomes = async (series: string, value: number) =>
    await eventually(read, (metrics) => metrics.get(`gift_budgets_${series}`) === value, 20_000);

  it('counts events by name and outcome; names that nobody knows are one', async () => {
    const events = new GiftEventClient(queue);
    await events.giftAssigned([pairs[0]!]);
    await events.close();
    const raw = openGiftEventsQueue(queue, () => {});
    await raw.connected();
    await raw.queue.add('gift.stolen', {});
    await raw.queue.add('"} 1\nx{y="', {});
    await raw.close();
    await becomes('events_total{name="gift.assigned",outcome="completed"}', 1);
    const metrics = await becomes('events_total{name="other",outcome="failed"}', 2);
    expect([...metrics.keys()].filter((series) => series.includes('stolen'))).toEqual([]);
    expect(metrics.get('gift_budgets_events_total{name="gift.moved",outcome="failed"}')).toBe(0);
    await becomes('queue_jobs{state="failed"}', 2);
  });

  it('counts pairs by what became of them, and those that cannot be stored', async () => {
    await assign(database.upstream.pool, pairs[0]!, '12.50');
    await becomes('recalculated_pairs_total{cause="mark",outcome="changed"}', 1);
    await assign(database.upstream.pool, pairs[1]!, '99999999.99');
    await assign(database.upstream.pool, pairs[1]!, '0.01');
    const metrics = await becomes('recalculation_failures', 1);
    expect(
      metrics.get('gift_budgets_recalculated_pairs_total{cause="mark",outcome="failed"}'),
    ).toBeGreaterThan(0);
    expect(metrics.get('gift_budgets_batch_pairs_count{cause="mark"}')).toBeGreaterThan(0);
    expect(metrics.get('gift_budgets_batch_duration_seconds_sum{cause="mark"}')).toBeLessThan(60);
  });

  it('counts the drift that sweeps found and repaired', async () => {
    const metrics = await becomes('drifted_pairs_total{outcome="repaired"}', 1);
    expect(metrics.get('gift_budgets_swept_pairs_total')).toBeGreaterThan(0);
    await becomes('last_sweep_drifted_pairs', 0);
    await assignBehindTriggers(database.pool, pairs[2]!, '1.00');
    await becomes('last_sweep_drifted_pairs', 1);
    const finished = 'gift_budgets_last_sweep_finished_timestamp_seconds';
    await eventually(read, (now) => Math.abs(now.get(finished)! - Date.now() / 1_000) < 60);
  });

  it('tells the lag, and what the work needs', async () => {
    await becomes('lag_seconds', 0);
    await becomes('pending_pairs', 0);
    const metrics = await becomes('ready{part="queue"}', 1);
    expect(metrics.get('gift_budgets_ready{part="migrations"}')).toBe(1);
    expect(metrics.get('gift_budgets_healthy')).toBe(1);
    expect(metrics.get('process_start_time_seconds')).toBeGreaterThan(1e9);
  });

  it('has the names, kinds and labels that docs/operating.md says, and no others', async () => {
    const doc = await readFile(new URL('../docs/operating.md', import.meta.url), 'utf8');
    const row = /^\| `(gift_budgets_\w+)` \| (\w+) \|([^|]*)\| [^|]+ \|$/gm;
    const documented = [...doc.matchAll(row)].map(([, name, kind, labels]) => ({
      name,
      kind,
      labels: [...labels!.matchAll(/`(\w+)`/g)].map(([, label]) => label!).toSorted(),
    }));
    const text = await (await fetch(`${app.url}/metrics`)).text();
    const served = [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)]
      .filter(([, name]) => !/^(process|nodejs)_/.test(name!))
      .map(([, name, kind]) => ({ name, kind, labels: labelsOf(text, name!) }));
    expect(documented).toHaveLength(served.length);
    expect(documented).toEqual(expect.arrayContaining(served));
  });
});

/** The labels that the series of a metric have, but those that a histogram adds. */
function labelsOf(text: string, name: string): string[] {
  const series = new RegExp(`^${name}(?:_bucket|_sum|_count)?\\{(.*)\\} `, 'gm');
  const labels = [...text.matchAll(series)].flatMap(([, inner]) =>
    [...inner!.matchAll(/(\w+)="/g)].map(([, label]) => label!),
  );
  return [...new Set(labels)].filter((label) => label !== 'le').toSorted();
}
