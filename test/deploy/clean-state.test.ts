import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { knownMigrations, migrate } from '../../src/database.ts';
import { ROOT } from '../support/documents.ts';
import { createEmptyDatabase, type TestDatabase } from '../support/servers.ts';
import { run } from '../support/typist.ts';

const require = createRequire(import.meta.url);
const SQUAWK = require.resolve('squawk-cli/js/bin/squawk');

/** What squawk warns of and is wanted so: a rule, the one line it is about, and why. */
const WANTED: readonly { rule: string; line: RegExp; because: string }[] = [
  {
    rule: 'prefer-text-field',
    line: /budget_currency varchar\(3\)/,
    because: 'the type was asked for, and codes of ISO 4217 have three letters: its size stays',
  },
  {
    rule: 'prefer-bigint-over-int',
    line: /attempts int not null/,
    because: 'it counts how often one total was tried: at one a second it lasts for 68 years',
  },
];

interface Finding {
  readonly file: string;
  /** Counted from 0. */
  readonly line: number;
  readonly line_end: number;
  readonly level: string;
  readonly message: string;
  readonly rule_name: string;
}

let database: TestDatabase;
let folder: string;

beforeEach(async () => {
  database = await createEmptyDatabase();
  folder = await mkdtemp(join(tmpdir(), 'clean-state-'));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await database.close();
  await rm(folder, { recursive: true });
});

describe('squawk', () => {
  it('finds nothing unexplained in the SQL that an up sends to the server', async () => {
    const sent = await recordMigrations();
    expect([...sent.keys()]).toEqual(await knownMigrations());
    const findings = await lint(sent);
    const isWanted = ({ rule_name, sql }: { rule_name: string; sql: string }) =>
      WANTED.some(({ rule, line }) => rule === rule_name && line.test(sql));
    expect(findings.filter((finding) => !isWanted(finding))).toEqual([]);
    // What is wanted no more must not stay in the list.
    const unneeded = WANTED.filter(
      ({ rule, line }) =>
        !findings.some(({ rule_name, sql }) => rule === rule_name && line.test(sql)),
    );
    expect(unneeded).toEqual([]);
  });

  it('would find what keeps writers waiting, and what it cannot read', async () => {
    const findings = await lint(
      new Map([
        ['waits', ['create index i on person_occasions (budget_amount)']],
        ['is no SQL', ['create indx i on person_occasions']],
      ]),
    );
    expect(findings.map(({ rule_name }) => rule_name)).toEqual(
      expect.arrayContaining([
        'require-lock-timeout',
        'require-concurrent-index-creation',
        'syntax-error',
      ]),
    );
  });
});

/** Migrates, and returns for each migration every message that was sent to the server in its time. */
async function recordMigrations(): Promise<Map<string, string[]>> {
  const sent = new Map<string, string[]>();
  let current: string[] = [];
  const query = Reflect.get(pg.Client.prototype, 'query') as (...args: unknown[]) => unknown;
  vi.spyOn(pg.Client.prototype, 'query').mockImplementation(function (
    this: pg.Client,
    ...args: unknown[]
  ) {
    const [what] = args as [string | { text?: string }];
    const text = typeof what === 'string' ? what : what.text;
    if (text) current.push(text);
    return query.apply(this, args);
  });
  const { migrator } = database.orm;
  migrator.on('migrating', ({ name }) => {
    current = [];
    sent.set(name, current);
  });
  migrator.on('migrated', () => {
    current = [];
  });
  await migrate(database);
  return sent;
}

/** What squawk says of them, each with the SQL that it is about. */
async function lint(
  sent: ReadonlyMap<string, readonly string[]>,
): Promise<(Finding & { sql: string })[]> {
  const lines = new Map<string, string[]>();
  for (const [name, messages] of sent) {
    const file = `${name}.sql`;
    const script = asScript(messages);
    lines.set(file, script.split('\n'));
    await writeFile(join(folder, file), script);
  }
  const config = join(ROOT, 'test/deploy/squawk.toml');
  const { code, out, err } = await run(
    folder,
    `node ${SQUAWK} --config ${config} --reporter json *.sql`,
  );
  if (code !== 0 && code !== 1) throw new Error(`squawk ended with ${code}: ${err}`);
  return (JSON.parse(out) as Finding[]).map((finding) => {
    const file = basename(finding.file);
    const sql = lines
      .get(file)!
      .slice(finding.line, finding.line_end + 1)
      .join('\n');
    return { ...finding, file, sql };
  });
}

/** The messages as one script that means the same to the server. */
function asScript(messages: readonly string[]): string {
  let inTransaction = false;
  const statements = messages.flatMap((message) => {
    // MikroORM's; standard SQL for what squawk can read.
    const text = message.replace(/^set names /, 'set client_encoding = ').replace(/;?\s*$/, ';');
    if (/^(begin|start transaction)\b/i.test(text)) inTransaction = true;
    if (/^(commit|rollback)\s*;/i.test(text)) inTransaction = false;
    // Several statements in one message are one transaction.
    const several = /;\s*\S/.test(text.replaceAll(/\$\$.*?\$\$/gs, '').replaceAll(/'[^']*'/g, ''));
    return several && !inTransaction ? ['begin;', text, 'commit;'] : [text];
  });
  return `${statements.join('\n')}\n`;
}
