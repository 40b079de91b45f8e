import { describe, expect, it } from 'vitest';
import { advise, seconds } from '../src/operations/advice.ts';
import { html } from '../src/operations/html.ts';
import { overviewBody, overviewPage } from '../src/operations/overview-page.ts';
import type { Overview } from '../src/operations/overview.ts';
import { sampled } from '../src/operations/sampled.ts';

const AT = new Date('2026-11-24T03:00:00Z');
const JOBS = { waiting: 0, active: 0, failed: 0, completed: 9, delayed: 0, prioritized: 0 };
const SWEEP = {
  id: '1',
  mode: 'repair',
  startedAt: new Date('2026-11-24T02:30:00Z'),
  finishedAt: new Date('2026-11-24T02:30:02Z'),
  after: null,
  checked: 12_345,
  drifted: 0,
  repaired: 0,
  failed: 0,
} as const;
const FAILURE = {
  personId: '7',
  occasionId: '8',
  person: 'Ada',
  occasion: 'Christmas',
  reason: 'the sum 100000000.00 does not fit',
  total: '100000000.00',
  attempts: 1,
  firstFailedAt: AT,
  lastFailedAt: AT,
};

const WELL: Overview = {
  at: AT,
  backend: 'redis',
  sweepMode: 'repair',
  sweepIntervalMs: 3_600_000,
  lag: { value: { seconds: 0, pendingPairs: 0, isAtLeast: false, waitsLongest: null } },
  failures: { value: { count: 0, first: [] } },
  sweeps: { value: [SWEEP] },
  queue: { value: { jobs: JOBS, lastFailed: [], isPaused: false } },
  schema: { value: { state: 'fits' } },
  rates: { eventsPerSecond: 12.3, pairsPerSecond: 4_567 },
  sinceLastEventMs: 100_000,
  standsStill: null,
};

const queueWith = (state: object): Partial<Overview> => ({
  queue: { value: { ...WELL.queue.value!, ...state } },
});
const lagOf = (seconds: number, waitsLongest: object | null): Partial<Overview> => ({
  lag: { value: { ...WELL.lag.value!, seconds, waitsLongest } as never },
});

describe('what is wrong is told with what to do:', () => {
  it.each<[what: string, Partial<Overview>, level: string, says: RegExp, does: string | undefined]>(
    [
      [
        'PostgreSQL is away',
        { schema: { problem: 'connect ECONNREFUSED' }, lag: { problem: 'connect ECONNREFUSED' } },
        'bad',
        /^PostgreSQL does not answer: connect ECONNREFUSED$/,
        'gift-budgets status',
      ],
      [
        'a migration is missing',
        { schema: { value: { state: 'older', missing: ['Migration1'] } }, lag: { problem: 'x' } },
        'bad',
        /the database lacks 1 migration that this version needs, the first is Migration1$/,
        'gift-budgets migrate',
      ],
      [
        'a later version has migrated',
        { schema: { value: { state: 'newer', unknown: ['Migration9'] } } },
        'bad',
        /a later version has migrated the database: Migration9 is not known here$/,
        undefined,
      ],
      ['it stands still', { standsStill: 'x' }, 'bad', /stands still: x$/, 'gift-budgets start'],
      [
        'a budget waits long',
        lagOf(250, { personId: '7', occasionId: '8' }),
        'bad',
        /^The totals are 4 min 10 s behind$/,
        'gift-budgets explain --person 7 --occasion 8',
      ],
      [
        'everything waits long',
        lagOf(11, null),
        'bad',
        /^The totals are 11 s behind$/,
        'gift-budgets status',
      ],
      [
        'Redis is away',
        { queue: { problem: 'connect ECONNREFUSED' } },
        'bad',
        /^The queue does not answer: connect ECONNREFUSED$/,
        'redis-cli -u "$REDIS_URL" ping',
      ],
      [
        'the queue is paused',
        queueWith({ isPaused: true, jobs: { ...JOBS, waiting: 3 } }),
        'warn',
        /^The queue is paused/,
        '/queues/queue/gift-events',
      ],
      [
        'jobs wait and nobody takes them',
        queueWith({ jobs: { ...JOBS, waiting: 1 } }),
        'bad',
        /^1 job waits, and nobody takes any$/,
        'gift-budgets start',
      ],
      [
        'totals cannot be stored',
        { failures: { value: { count: 2, first: [FAILURE] } } },
        'warn',
        /^2 totals cannot be stored$/,
        'gift-budgets failures',
      ],
      [
        'jobs failed',
        queueWith({ jobs: { ...JOBS, failed: 1 } }),
        'warn',
        /^1 gift event failed$/,
        '/queues/queue/gift-events?status=failed',
      ],
      [
        'a sweep repaired drift',
        { sweeps: { value: [{ ...SWEEP, drifted: 3, repaired: 3 }] } },
        'warn',
        /^The last sweep found 3 totals wrong with no mark, and repaired 3$/,
        'gift-budgets verify',
      ],
      [
        'a sweep reported drift',
        { sweeps: { value: [{ ...SWEEP, mode: 'report', drifted: 3 }] } },
        'bad',
        /^The last sweep found 3 totals wrong with no mark$/,
        'gift-budgets repair',
      ],
      [
        'no sweep has finished for long',
        { sweepIntervalMs: 60_000 },
        'warn',
        /^No sweep has finished for 29 min 58 s$/,
        'gift-budgets verify',
      ],
    ],
  )('%s', (_, change, level, says, does) => {
    const overview = { ...WELL, ...change };
    const advice = advise(overview);
    expect(advice).toHaveLength(1);
    expect(advice[0]).toMatchObject({ level, what: expect.stringMatching(says) });
    expect(advice[0]!.command ?? advice[0]!.page).toBe(does);
    const { text } = overviewBody(overview);
    expect(text).toContain(level === 'bad' ? 'Something is wrong' : 'Have a look');
    if (does !== undefined) expect(text).toContain(html`${does}`.text);
  });

  it('nothing, where all is well', () => {
    expect(advise(WELL)).toEqual([]);
    expect(overviewPage(WELL).text).toContain('<title>All is well · gift-budgets</title>');
  });

  it('the worst first', () => {
    const overview = {
      ...WELL,
      ...queueWith({ jobs: { ...JOBS, failed: 1 } }),
      standsStill: 'x',
      failures: { value: { count: 1, first: [] } },
    };
    expect(advise(overview).map(({ level }) => level)).toEqual(['bad', 'warn', 'warn']);
  });
});

describe('the page', () => {
  it('has the figures of the moment', () => {
    const { text } = overviewBody({
      ...WELL,
      lag: {
        value: { seconds: 3.21, pendingPairs: 10_000, isAtLeast: true, waitsLongest: null },
      },
    });
    const figures = [...text.matchAll(/<dt>(.*?)<\/dt>\s*<dd>(.*?)<\/dd>/g)];
    expect(figures.map(([, name, value]) => `${name}: ${value}`)).toEqual([
      'Lag: 3.2 s',
      'Pending pairs: 10,000+',
      'Events / s: 12',
      'Pairs / s: 4,567',
      'Jobs waiting: 0',
      'Jobs active: 0',
      'Jobs failed: 0',
      'Not storable: 0',
    ]);
    expect(text).toContain('2026-11-24 02:30:00 UTC');
    expect(text).toContain('12,345');
  });

  it('says what it does not know, instead of the last that it knew', () => {
    const problem = { problem: 'away' };
    const { text } = overviewBody({
      ...WELL,
      lag: problem,
      failures: problem,
      sweeps: problem,
      queue: problem,
    });
    expect(text.match(/<dd>\?<\/dd>/g)).toHaveLength(6);
    expect(text).toContain('Not known.');
  });

  it('escapes whatever comes from data, and cuts what is long', () => {
    const evil = `<script>alert("1")</script>'&\u0000${'x'.repeat(1_000)}`;
    const { text } = overviewPage({
      ...WELL,
      schema: { value: { state: 'newer', unknown: [evil] } },
      failures: { value: { count: 1, first: [{ ...FAILURE, reason: evil }] } },
      ...queueWith({
        jobs: { ...JOBS, failed: 1 },
        lastFailed: [{ id: `../"><b>${evil}`, name: evil, reason: evil, failedAt: AT }],
      }),
    });
    expect(text).not.toMatch(/<script>|<b>|\p{Cc}(?<!\n)/u);
    expect(text).toContain('&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;');
    expect(text).toContain('href="/queues/queue/gift-events/..%2F%22%3E%3Cb%3E%3Cscript%3E');
    expect(text.match(/x{301,}/g)).toHaveLength(1); // in the link
  });

  it('shows no names of people', () => {
    const failures = { value: { count: 1, first: [FAILURE] } };
    const { text } = overviewBody({ ...WELL, failures });
    expect(text).toContain('person 7, occasion 8');
    expect(text).not.toContain('Ada');
  });
});

it.each([
  [0, '0.0 s'],
  [9.94, '9.9 s'],
  [59.6, '1 min'],
  [61, '1 min 1 s'],
  [3_600, '1 h'],
  [90_061, '1 d 1 h'],
])('%d seconds are shown as %s', (total, shown) => {
  expect(seconds(total)).toBe(shown);
});

describe('a sampled source', () => {
  it('is read once for all who ask at the same time, and not again while it is young', async () => {
    let reads = 0;
    const read = sampled(async () => (reads += 1), { maxAgeMs: 60_000, waitMaxMs: 1_000 });
    expect(await Promise.all([read(), read(), read()])).toEqual(Array(3).fill({ value: 1 }));
    expect(await read()).toEqual({ value: 1 });
  });

  it('says why there is no answer, and is asked again later', async () => {
    let reads = 0;
    const read = sampled(
      async () => {
        reads += 1;
        if (reads === 1) throw Object.assign(new Error(''), { code: 'ECONNREFUSED' });
        return reads;
      },
      { maxAgeMs: 0, waitMaxMs: 1_000 },
    );
    expect(await read()).toEqual({ problem: 'ECONNREFUSED' });
    await expect.poll(read, { interval: 1 }).toEqual({ value: expect.any(Number) });
  });

  it('keeps nobody waiting; a slow one is asked by one only, and answers when it does', async () => {
    let reads = 0;
    const answer = Promise.withResolvers<string>();
    const read = sampled(
      async () => {
        reads += 1;
        return await answer.promise;
      },
      { maxAgeMs: 0, waitMaxMs: 20 },
    );
    const asked = await Promise.all([read(), read()]);
    expect(asked).toEqual(Array(2).fill({ problem: 'no answer for 0 s' }));
    answer.resolve('late');
    expect(await read()).toEqual({ value: 'late' });
    expect(reads).toBe(1);
  });
});
