import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, test } from 'vitest';
import { parse } from 'yaml';
import { codeBlocks, readDocument, ROOT } from '../support/documents.ts';
import { isOnPath } from '../support/outages.ts';

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: Readonly<Record<string, string>>;
}

interface AlertTest {
  readonly alertname: string;
  readonly exp_alerts: readonly object[];
}

const RULES = 'alerts/gift-budgets.rules.yml';
const RULES_TEST = 'alerts/gift-budgets.rules.test.yml';

const OPERATING = readDocument('docs/operating.md');
const ALERTS = (parse(readDocument(RULES)) as { groups: { rules: Alert[] }[] }).groups.flatMap(
  ({ rules }) => rules,
);

const RULE_TESTS = (
  parse(readDocument(RULES_TEST)) as { tests: { alert_rule_test?: AlertTest[] }[] }
).tests.flatMap((one) => one.alert_rule_test ?? []);

/** Metrics of the table, a histogram by each of the names that its series have. */
const METRICS = [...OPERATING.matchAll(/^\| `(gift_budgets_\w+)` \| (\w+) \|/gm)].flatMap(
  ([, name, kind]) =>
    kind === 'histogram' ? ['_bucket', '_sum', '_count'].map((part) => name! + part) : [name!],
);

describe.each(ALERTS)('$alert', ({ alert, expr, labels, annotations }) => {
  it('asks only for metrics that there are', () => {
    const asked = expr.match(/gift_budgets_\w+/g)!;
    expect(METRICS).toEqual(expect.arrayContaining(asked));
  });

  it('says how urgent it is, what is the case, and where to read on', () => {
    expect(['page', 'ticket']).toContain(labels.severity);
    expect(annotations.summary).toMatch(/^[A-Z]/);
    // Of an absent metric there is no value to tell.
    if (!expr.startsWith('absent(')) expect(annotations.description).toContain('$value');
    expect(annotations.runbook).toBe(`docs/operating.md#${alert.toLowerCase()}`);
  });

  it('has a section in docs/operating.md with something to type or to open', () => {
    const [, section] = new RegExp(`^### ${alert}\n(.*?)^##`, 'ms').exec(OPERATING)!;
    expect(section).toMatch(/^```sh$|\/queues/m);
    expect(section).toContain(`**${labels.severity}.**`);
  });

  it('is tested firing and not firing', () => {
    const own = RULE_TESTS.filter(({ alertname }) => alertname === alert);
    expect(own.some(({ exp_alerts }) => exp_alerts.length > 0)).toBe(true);
    expect(own.some(({ exp_alerts }) => exp_alerts.length === 0)).toBe(true);
  });
});

test('docs/operating.md has sections for these alerts alone', () => {
  const sections = [...OPERATING.matchAll(/^### (GiftBudgets\w+)$/gm)].map(([, name]) => name!);
  expect(sections).toEqual(ALERTS.map(({ alert }) => alert));
});

test('the links within docs/operating.md lead somewhere', () => {
  const headings = [...OPERATING.matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  for (const [, anchor] of OPERATING.matchAll(/\]\(#([^)]+)\)/g))
    expect(headings).toContain(anchor);
});

const noPromtool = isOnPath('promtool')
  ? null
  : 'no promtool: the alerts are not tried; Debian has it in its package prometheus';
if (noPromtool !== null) {
  if (process.env.REQUIRE_PROMTOOL === '1')
    throw new Error(`REQUIRE_PROMTOOL=1, but ${noPromtool}`);
  console.warn(noPromtool);
}

describe.skipIf(noPromtool !== null)('promtool', () => {
  const promtool = async (...args: string[]): Promise<string> =>
    (await promisify(execFile)('promtool', args, { cwd: ROOT })).stdout;

  it('finds the rules well-formed', async () => {
    const out = await promtool('check', 'rules', RULES);
    expect(out).toContain(`SUCCESS: ${ALERTS.length} rules found`);
  });

  it('takes the configuration that docs/operating.md shows', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'prometheus-'));
    try {
      await cp(join(ROOT, RULES), join(directory, basename(RULES)));
      await writeFile(join(directory, 'gift-budgets.password'), 'secret');
      await writeFile(join(directory, 'prometheus.yml'), codeBlocks(OPERATING, 'yaml')[0]!);
      const out = await promtool('check', 'config', join(directory, 'prometheus.yml'));
      expect(out).toContain('SUCCESS: 1 rule files found');
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it('sees them fire when they should', async () => {
    expect(await promtool('test', 'rules', RULES_TEST)).toContain('SUCCESS');
  });
});
