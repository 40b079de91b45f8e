import { measureAlternating, median, ratioOf } from '../../bench/measure.ts';
import type { Side } from './sides.ts';

interface Read {
  readonly name: string;
  readonly select: string;
  /** With $1 for a person or an occasion, or both as $1 and $2. */
  readonly where: string;
  readonly key: readonly ('person_id' | 'occasion_id')[];
  /** How many of them, with different keys, make a round. */
  readonly times: number;
}

const BUDGET = 'person_id, occasion_id, budget_amount, budget_spent, budget_currency';

const READS: readonly Read[] = [
  {
    name: 'one pair',
    select: BUDGET,
    where: 'person_id = $1 and occasion_id = $2',
    key: ['person_id', 'occasion_id'],
    times: 300,
  },
  {
    name: 'person X across occasions',
    select: BUDGET,
    where: 'person_id = $1 order by occasion_id',
    key: ['person_id'],
    times: 100,
  },
  {
    name: 'person X with a budget set',
    select: BUDGET,
    where: 'person_id = $1 and budget_amount is not null order by occasion_id',
    key: ['person_id'],
    times: 100,
  },
  {
    name: 'person X with a budget set, the amounts alone',
    select: 'occasion_id, budget_amount',
    where: 'person_id = $1 and budget_amount is not null order by occasion_id',
    key: ['person_id'],
    times: 100,
  },
  {
    name: 'the first 100 of occasion Y',
    select: BUDGET,
    where: 'occasion_id = $1 order by person_id limit 100',
    key: ['occasion_id'],
    times: 10,
  },
  {
    name: 'all of occasion Y',
    select: BUDGET,
    where: 'occasion_id = $1 order by person_id',
    key: ['occasion_id'],
    times: 2,
  },
];

const ROUNDS = 9;
const EXPLAINED = 10;

export interface ReadResult {
  readonly read: string;
  readonly side: string;
  readonly plan: string;
  readonly rows: number;
  /** Pages of 8 kB that one of them looks at, on average. */
  readonly pages: number;
  readonly ms: number;
  /** The time in terms of that with the primary key alone, in the same rounds. */
  readonly timeRatio: number;
}

/** Explains and times every read on every side, the sides in turn. */
export async function measureReads(sides: readonly Side[]): Promise<ReadResult[]> {
  const results: ReadResult[] = [];
  for (const read of READS) {
    const keys = await someKeys(sides[0]!, read);
    const text = `select ${read.select} from person_occasions where ${read.where}`;
    const measured = await measureAlternating(
      sides.map(({ name, pool }) => ({
        name,
        run: async () => {
          for (const key of keys) await pool.query(text, key);
          return keys.length;
        },
      })),
      ROUNDS,
    );
    for (const [place, side] of sides.entries()) {
      results.push({
        read: read.name,
        side: side.name,
        ...(await explain(side, text, keys)),
        ms: 1_000 / median(measured[place]!.rates),
        timeRatio: ratioOf(measured[0]!, measured[place]!),
      });
    }
  }
  return results;
}

async function someKeys({ pool }: Side, { key, times }: Read): Promise<string[][]> {
  const { rows } = await pool.query<Record<string, string>>(
    `select person_id, occasion_id from person_occasions order by random() limit $1`,
    [times],
  );
  return rows.map((row) => key.map((column) => row[column]!));
}

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Index Name'?: string;
  readonly 'Actual Rows': number;
  readonly 'Shared Hit Blocks': number;
  readonly 'Shared Read Blocks': number;
  readonly Plans?: readonly PlanNode[];
}

async function explain(
  { pool }: Side,
  text: string,
  keys: readonly (readonly string[])[],
): Promise<Pick<ReadResult, 'plan' | 'rows' | 'pages'>> {
  const plans: PlanNode[] = [];
  for (const key of keys.slice(0, EXPLAINED)) {
    const { rows } = await pool.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(
      `explain (analyze, buffers, format json) ${text}`,
      [...key],
    );
    plans.push(rows[0]!['QUERY PLAN'][0].Plan);
  }
  const mean = (value: (plan: PlanNode) => number): number =>
    plans.reduce((sum, plan) => sum + value(plan), 0) / plans.length;
  return {
    plan: [...new Set(plans.map(describe))].join(' or '),
    rows: mean((plan) => plan['Actual Rows']),
    pages: mean((plan) => plan['Shared Hit Blocks'] + plan['Shared Read Blocks']),
  };
}

/** 'Sort ← Bitmap Heap Scan ← Bitmap Index Scan on person_occasions_pkey' */
function describe(plan: PlanNode): string {
  const index = plan['Index Name'];
  const own = plan['Node Type'] + (index === undefined ? '' : ` on \`${index}\``);
  return [own, ...(plan.Plans ?? []).map(describe)].join(' ← ');
}
