// Measures what the indexes of the budgets are good for, and what they cost, and writes the tables
// into docs/schema.md. With `--pairs N` it only prints them, for that many pairs.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { type BenchDatabase, withPostgres } from '../bench/servers.ts';
import { measureReads, type ReadResult } from './index-report/reads.ts';
import { type Side, withSides } from './index-report/sides.ts';
import { measureWrites, type WriteResult } from './index-report/writes.ts';

const DOCUMENT = 'docs/schema.md';
const BEGIN = '<!-- Written by `npm run index-report`: -->';
const END = '<!-- … up to here. -->';
const PAIRS = 1_000_000;

const { values } = parseArgs({ options: { pairs: { type: 'string' } } });
const pairs = Number(values.pairs ?? PAIRS);
if (!Number.isInteger(pairs) || pairs < 1_000 || pairs % 50 !== 0) {
  throw new Error(`--pairs is to be a multiple of 50, at least 1000, not ${values.pairs}`);
}

/** As in production, but that nothing else shall write to the log or make room on the pages. */
const SETTINGS = { full_page_writes: 'on', autovacuum: 'off' };

const report = await withPostgres(measure, SETTINGS);
console.log(report);
if (values.pairs === undefined) {
  const [before, after] = split(readFileSync(DOCUMENT, 'utf8'));
  writeFileSync(DOCUMENT, `${before}${BEGIN}\n\n${report}\n${END}${after}`);
  console.log(`written into ${DOCUMENT}`);
}

function split(document: string): [before: string, after: string] {
  const [begin, end] = [document.indexOf(BEGIN), document.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${DOCUMENT} lacks the lines ${BEGIN} and ${END}`);
  return [document.slice(0, begin), document.slice(end + END.length)];
}

async function measure(server: BenchDatabase): Promise<string> {
  return await withSides(server, pairs, async (sides) => {
    const sizes = await readSizes(sides.at(-1)!);
    const surroundings = await describeSurroundings(server.pool);
    const reads = await measureReads(sides);
    const writes = await measureWrites(sides);
    return [
      surroundings,
      table(['read', 'rows', 'indexes', 'plan', 'pages', 'ms', 'time'], reads.map(readLine)),
      table(
        ['write', 'indexes', 'µs', 'time', 'WAL bytes', 'and page images', 'HOT'],
        writes.map(writeLine),
      ),
      table(['table or index', 'MB', 'bytes a pair'], sizes),
    ].join('\n');
  });
}

function readLine({ read, side, plan, rows, pages, ms, timeRatio }: ReadResult): string[] {
  return [
    read,
    Math.round(rows).toLocaleString('en'),
    side,
    plan,
    round(pages),
    round(ms),
    `${timeRatio.toFixed(2)} ×`,
  ];
}

function writeLine(result: WriteResult): string[] {
  const { write, side, microseconds, timeRatio, walBytes, pageImageBytes } = result;
  return [
    write,
    side,
    round(microseconds),
    `${timeRatio.toFixed(2)} ×`,
    round(walBytes),
    round(pageImageBytes),
    result.hotShare === null ? '' : `${(100 * result.hotShare).toFixed(1)} %`,
  ];
}

async function readSizes({ pool }: Side): Promise<string[][]> {
  const { rows } = await pool.query<{ name: string; bytes: string }>(
    `select c.relname as name, pg_relation_size(c.oid) as bytes
       from pg_class c
       left join pg_index i on i.indexrelid = c.oid
      where 'person_occasions'::regclass in (c.oid, i.indrelid)
      order by c.relkind desc, c.relname = 'person_occasions_pkey' desc, c.relname`,
  );
  return rows.map(({ name, bytes }) => [
    `\`${name}\``,
    round(Number(bytes) / 1e6),
    round(Number(bytes) / pairs),
  ]);
}

async function describeSurroundings(pool: pg.Pool): Promise<string> {
  const { rows } = await pool.query<{ name: string; setting: string }>(
    `select name, current_setting(name) as setting from pg_settings
      where name in ('server_version', 'shared_buffers', 'fsync', 'full_page_writes', 'autovacuum')
      order by name <> 'server_version', name`,
  );
  const settings = rows.map(({ name, setting }) => `\`${name}\` ${setting}`).join(', ');
  const date = new Date().toISOString().slice(0, 10);
  const machine = `${cpus().length} × ${cpus()[0]?.model}, load ${Math.round(loadavg()[2]!)}`;
  return (
    `${pairs.toLocaleString('en')} pairs, half of them with an amount, in random order; ${date}, ` +
    `${machine}, Node ${process.versions.node}, PostgreSQL with ${settings}.\n`
  );
}

function table(heading: readonly string[], lines: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return `${[line(heading), line(heading.map(() => '---')), ...lines.map(line)].join('\n')}\n`;
}

function round(value: number): string {
  return value >= 10 ? Math.round(value).toLocaleString('en') : `${Number(value.toPrecision(2))}`;
}
