import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { burst } from './burst.ts';
import { capture } from './capture.ts';
import { client } from './client.ts';
import { events } from './events.ts';
import { freshness } from './freshness.ts';
import { growth } from './growth.ts';
import { hot } from './hot.ts';
import type { Bench } from './measure.ts';
import { postgresQueue } from './postgres-queue.ts';
import { reads } from './reads.ts';
import { recalculate } from './recalculate.ts';
import { report, type Report } from './report.ts';
import { sweep } from './sweep.ts';

const benches: Readonly<Record<string, Bench>> = {
  events,
  recalculate,
  capture,
  hot,
  burst,
  client,
  reads,
  freshness,
  sweep,
  growth,
  'postgres-queue': postgresQueue,
};

const { values, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' } },
});
const unknown = names.filter((name) => !Object.hasOwn(benches, name));
if (names.length === 0 || unknown.length > 0) {
  if (unknown.length > 0) console.error(`unknown benchmark: ${unknown.join(', ')}`);
  console.error('usage: npm run bench -- NAME… [--json FILE]');
  console.error(`benchmarks: ${Object.keys(benches).join(', ')}`);
  process.exit(1);
}

const reports: Report[] = [];
for (const name of names) {
  const startedAt = performance.now();
  const outcome = await benches[name]!();
  reports.push(report(name, outcome, (performance.now() - startedAt) / 1_000));
}
if (values.json) await writeFile(values.json, `${JSON.stringify(reports, null, 2)}\n`);
