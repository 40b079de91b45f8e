import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { logObserver } from '../src/operations/log-observer.ts';
import { createOwnRedis, freePort, isOnPath } from './support/outages.ts';
import { runProgram, startProgram } from './support/run-program.ts';
import { createTestDatabase } from './support/servers.ts';

const RESULTS = [
  { personId: '1', occasionId: '2', outcome: 'changed', before: '1.00', after: '3.50' },
  { personId: '1', occasionId: '3', outcome: 'unchanged', before: '0.00', after: '0.00' },
  { personId: '1', occasionId: '4', outcome: 'busy' },
] as const;

function linesAt(level: string): Record<string, unknown>[] {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line));
  const observer = logObserver(pino({ level, base: null, timestamp: false }, { write }));
  observer.batch!('event', RESULTS, 12.6);
  return lines;
}

it('a batch is one line at info, with its counts and how long it took', () => {
  const batch = { cause: 'event', pairs: 3, changed: 1, unchanged: 1, busy: 1, durationMs: 13 };
  expect(linesAt('info')).toEqual([{ level: 30, ...batch, msg: 'batch' }]);
});

it('each of its pairs is one at debug, with before, after and cause', () => {
  const [, ...pairs] = linesAt('debug');
  expect(pairs).toEqual(
    RESULTS.map((result) => ({ level: 20, cause: 'event', ...result, msg: 'pair' })),
  );
});

it('on a terminal it is for people, elsewhere JSON; of an error its other fields are not told', async () => {
  const write = async (forPeople: boolean): Promise<string> => {
    const script = `
      import { createLogger } from ${JSON.stringify(new URL('../src/operations/log.ts', import.meta.url).href)};
      const cause = new Error('the cause');
      const err = Object.assign(new Error('refused', { cause }), {
        code: 'ENO', command: { name: 'auth', args: ['s3cret'] } });
      createLogger('info', ${forPeople}).warn({ cause: 'mark', err }, 'trying again');`;
    const args = ['--input-type=module', '--eval', script];
    return (await promisify(execFile)(process.execPath, args)).stderr;
  };
  const [pretty, json] = await Promise.all([write(true), write(false)]);
  expect(pretty).toMatch(/WARN.*: .*trying again/);
  expect(pretty).toMatch(/cause: .*"mark"/);
  expect(() => JSON.parse(pretty)).toThrow(SyntaxError);
  expect(JSON.parse(json)).toMatchObject({
    name: 'gift-budgets',
    level: 40,
    cause: 'mark',
    err: {
      type: 'Error',
      message: 'refused: the cause',
      code: 'ENO',
      stack: expect.stringContaining('caused by: Error: the cause'),
    },
    msg: 'trying again',
  });
  expect(pretty + json).not.toContain('s3cret');
});

describe.skipIf(inject('redisUrl') === null || !isOnPath('redis-server'))(
  'credentials that are refused do not appear',
  () => {
    it('in what start and doctor say', async () => {
      const database = await createTestDatabase();
      const redis = createOwnRedis(await freePort());
      await redis.start();
      onTestFinished(async () => {
        await Promise.all([redis.stop(), database.close()]);
      });
      await redis.run('config', 'set', 'requirepass', 'another one');
      const env = {
        DATABASE_URL: database.url,
        REDIS_URL: redis.connection.url.replace('//', '//:s3cret@'),
        GIFT_BUDGETS_DASHBOARD_PORT: '0',
        GIFT_BUDGETS_LOG_LEVEL: 'debug',
      };
      const program = startProgram(['start'], env);
      try {
        await program.said(/"queue error"/);
        const [, url] = await program.said(/"pages":"(http:\/\/[\d.:]+)"/);
        const pages = ['/', '/metrics', '/readyz', '/queues/api/queues?activePage=1'];
        const shown = await Promise.all(
          pages.map(async (path) => await (await fetch(url + path)).text()),
        );
        program.kill('SIGTERM');
        const { out, err } = await program.ended();
        expect(err).toContain('WRONGPASS');
        expect(shown[0]).toContain('The queue does not answer');
        const told = await runProgram(['doctor'], env);
        expect(told.out).toContain('WRONGPASS');
        for (const text of [out, err, told.out, told.err, ...shown]) {
          expect(text).not.toContain('s3cret');
          expect(text).not.toContain(new URL(database.url).password);
        }
      } finally {
        program.kill('SIGKILL');
      }
    }, 120_000);
  },
);
