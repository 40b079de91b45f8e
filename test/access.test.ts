import { connect } from 'node:net';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { pino } from 'pino';
import type { RouteOptions } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../src/config.ts';
import { knownMigrations } from '../src/database.ts';
import { isLoopback } from '../src/operations/access.ts';
import { createMonitor, type Monitor } from '../src/operations/monitor.ts';
import { pageParts } from '../src/operations/serve-pages.ts';
import {
  findExposure,
  startWebServer,
  type WebPart,
  type WebServer,
} from '../src/operations/web-server.ts';
import { GiftEventClient } from '../src/events/client.ts';
import type { QueueConnection } from '../src/queue.ts';
import { basic, CREDENTIALS } from './support/app.ts';
import { type Answer, ask, type Question } from './support/ask.ts';
import { runProgram } from './support/run-program.ts';
import { createTestDatabase, type TestDatabase } from './support/servers.ts';

const RIGHT = basic(CREDENTIALS.user, CREDENTIALS.password);
const WRONG: readonly [kind: string, authorization: string][] = [
  ['another password', basic(CREDENTIALS.user, 'only for the test')],
  ['another user', basic('operators', CREDENTIALS.password)],
  ['a longer password', basic(CREDENTIALS.user, `${CREDENTIALS.password}x`)],
  ['nothing for a password', basic(CREDENTIALS.user, '')],
  ['no colon', `Basic ${Buffer.from('operator').toString('base64')}`],
  ['no base64', 'Basic ???'],
  ['another scheme', `Bearer ${RIGHT.slice(6)}`],
  ['nothing', ''],
];

let database: TestDatabase;
let queue: QueueConnection;
let monitor: Monitor;
const routes: Pick<RouteOptions, 'method' | 'url'>[] = [];
const errors: Error[] = [];
let guarded: WebServer;
let readOnly: WebServer;
let open: WebServer;

beforeAll(async () => {
  database = await createTestDatabase();
  queue = { backend: 'postgres', url: database.worker.url };
  monitor = await createMonitor({
    databaseUrl: database.worker.url,
    pooled: false,
    queue,
    knownMigrations: await knownMigrations(),
    observer: {},
    log: pino({ level: 'silent' }),
  });
  guarded = await serve({ credentials: CREDENTIALS }, [collectRoutes]);
  readOnly = await serve({ credentials: CREDENTIALS, readOnly: true });
  open = await serve({});
});

afterAll(async () => {
  await Promise.all([guarded.stop(), readOnly.stop(), open.stop()]);
  await monitor.stop();
  await database.close();
  expect(errors).toEqual([]);
});

async function serve(
  options: { credentials?: typeof CREDENTIALS; readOnly?: boolean },
  parts: WebPart[] = [],
): Promise<WebServer> {
  const { credentials, readOnly: isReadOnly = false } = options;
  const config = { ...loadConfig({}), dashboardReadOnly: isReadOnly };
  const onError = (error: Error): unknown => errors.push(error);
  return await startWebServer(
    { host: '127.0.0.1', port: 0, credentials, readOnly: isReadOnly, onError },
    [...parts, ...pageParts(config, monitor)],
  );
}

/** Not encapsulated, so that it is told of the routes of all other parts. */
const collectRoutes: WebPart = Object.assign(
  async (...[server]: Parameters<WebPart>) => {
    server.addHook('onRoute', ({ method, url }) => void routes.push({ method, url }));
  },
  { [Symbol.for('skip-override')]: true },
);

let addresses = 10;
/** An address that nothing was asked from yet, so that no limit stands in the way. */
const fresh = (): string => `127.0.${(addresses += 1)}.1`;

const everyRoute = (): [method: string, path: string][] =>
  routes.flatMap(({ method, url }) => {
    const path = url.replace(/:\w+/g, 'x').replace('*', 'x');
    return [method].flat().map((one): [string, string] => [one, path]);
  });

const PUBLIC = ['/healthz', '/readyz'];

function expectNothingTold({ body }: Answer): void {
  expect(body).not.toMatch(/gift-events|gift_budgets|data-part|problems|postgres/i);
}

describe('with credentials set', () => {
  it('every route but the two probes refuses who has none', async () => {
    expect(everyRoute().length).toBeGreaterThan(60);
    for (const [method, path] of everyRoute()) {
      const answer = await ask(guarded.url, path, { method });
      const isPublic = PUBLIC.includes(path);
      expect([method, path, answer.status]).toEqual([method, path, isPublic ? 200 : 401]);
      if (!isPublic) expect(answer.headers['www-authenticate']).toMatch(/^Basic realm=/);
      expectNothingTold(answer);
    }
  });

  it('every route refuses wrong ones, the probes too', async () => {
    for (const [method, path] of everyRoute()) {
      const headers = { authorization: WRONG[0]![1] };
      const answer = await ask(guarded.url, path, { method, headers, from: fresh() });
      expect([method, path, answer.status]).toEqual([method, path, 401]);
      expectNothingTold(answer);
    }
  });

  it.each(WRONG)('%s is wrong', async (_, authorization) => {
    const answer = await ask(guarded.url, '/', { headers: { authorization }, from: fresh() });
    expect(answer.status).toBe(401);
    expectNothingTold(answer);
  });

  it('right ones open the pages', async () => {
    for (const path of ['/', '/overview', '/queues', '/queues/api/queues', '/metrics']) {
      const answer = await ask(guarded.url, path, { headers: { authorization: RIGHT } });
      expect([path, answer.status]).toEqual([path, 200]);
    }
  });

  it('the probes give details to those who have them', async () => {
    const plain = await ask(guarded.url, '/readyz');
    expect(JSON.parse(plain.body)).toEqual({ ready: true });
    const detailed = await ask(guarded.url, '/readyz', { headers: { authorization: RIGHT } });
    expect(JSON.parse(detailed.body)).toEqual({
      ready: true,
      problems: { database: null, migrations: null, queue: null },
    });
  });

  it.each([
    '//',
    '//queues',
    '//queues/api/queues',
    '/queues//api/queues',
    '/./queues',
    '/healthz/../queues',
    '/healthz/..%2fqueues',
    '/healthz%2f..%2fqueues',
    '/%2e/queues',
    '/%2e%2e/queues',
    '/QUEUES',
    '/%71ueues',
    '/queues%2fapi%2fqueues',
    '/queues/api%2fqueues',
    '/queues;healthz',
    '/queues/healthz',
    '/queues?/healthz',
    '/queues#/healthz',
    '/metrics/',
    '/metrics%00',
    '/metrics?x=/healthz',
    '/healthz/metrics',
    '/queues/static/../../../package.json',
    '/queues/static/..%2f..%2fpackage.json',
    'http://127.0.0.1/queues',
    '*',
    '/%',
    '/%zz',
  ])('%s leads round nothing', async (path) => {
    const answer = await ask(guarded.url, path);
    expect([400, 401, 404]).toContain(answer.status);
    expectNothingTold(answer);
    const trusted = await ask(guarded.url, path, { headers: { authorization: RIGHT } });
    expect(trusted.body).not.toContain('"dependencies"');
  });

  it('ten wrong ones, and the right one is refused too for a while, from there alone', async () => {
    const from = fresh();
    const wrong = { headers: { authorization: WRONG[0]![1] }, from };
    const right = { headers: { authorization: RIGHT }, from };
    for (let tries = 0; tries < 15; tries += 1) {
      expect((await ask(guarded.url, '/', { from })).status).toBe(401);
    }
    for (let tries = 0; tries < 10; tries += 1) {
      expect((await ask(guarded.url, '/', wrong)).status).toBe(401);
    }
    for (const question of [wrong, right]) {
      const answer = await ask(guarded.url, '/', question);
      expect(answer.status).toBe(429);
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    }
    expect((await ask(guarded.url, '/readyz', right)).status).toBe(429);
    expect((await ask(guarded.url, '/readyz', { from })).status).toBe(200);
    expect((await ask(guarded.url, '/', { ...right, from: fresh() })).status).toBe(200);
  });
});

describe('an action', () => {
  let action: string;
  const act = async (server: WebServer, headers: Record<string, string>): Promise<Answer> =>
    await ask(server.url, action, { method: 'PUT', headers });

  beforeAll(async () => {
    const events = new GiftEventClient(queue);
    await events.recalculateBudgets([{ personId: 1, occasionId: 1 }]);
    await events.close();
    action = '/queues/api/queues/gift-events/pause';
  });

  it.each([
    ['a page of another site', { 'sec-fetch-site': 'cross-site' }],
    ['a page of a neighbour', { 'sec-fetch-site': 'same-site' }],
    ['another origin', { origin: 'https://evil.example' }],
    ['an origin that is hidden', { origin: 'null' }],
    ['an origin on another port', { origin: 'http://127.0.0.1:1' }],
  ])('asked for by %s is refused', async (_, headers) => {
    for (const [server, more] of [
      [guarded, { authorization: RIGHT }],
      [open, {}],
    ] as const) {
      const answer = await act(server, { ...headers, ...more });
      expect(answer.status).toBe(403);
      expect(answer.body).toContain('another site');
    }
    expect(await monitor.queue.queue.isPaused()).toBe(false);
  });

  it('is refused where all is read only, by the server and not only the page', async () => {
    const answer = await act(readOnly, { authorization: RIGHT });
    expect(answer.status).toBe(403);
    expect(answer.body).toContain('GIFT_BUDGETS_DASHBOARD_READ_ONLY');
    expect(await monitor.queue.queue.isPaused()).toBe(false);
    for (const [method, path] of everyRoute()) {
      if (method === 'GET' || method === 'HEAD') continue;
      const question: Question = { method, headers: { authorization: RIGHT } };
      expect((await ask(readOnly.url, path, question)).status).toBe(403);
    }
    const listed = await ask(readOnly.url, '/queues/api/queues', {
      headers: { authorization: RIGHT },
    });
    expect(JSON.parse(listed.body)).toMatchObject({ queues: [{ readOnlyMode: true }] });
  });

  it.each([
    ['its own page', { 'sec-fetch-site': 'same-origin', origin: 'https://behind.a.proxy' }],
    ['no browser', {}],
  ])('asked for by %s is taken', async (_, headers) => {
    expect((await act(guarded, { ...headers, authorization: RIGHT })).status).toBe(200);
    expect(await monitor.queue.queue.isPaused()).toBe(true);
    await monitor.queue.queue.resume();
  });
});

describe('oversized and malformed requests', () => {
  const headers = { authorization: RIGHT, 'content-type': 'application/json' };
  const add = '/queues/api/queues/gift-events/add';

  it.each<[kind: string, path: string, question: Question, status: number]>([
    ['a body too large', add, { method: 'POST', headers, body: 'x'.repeat(70_000) }, 413],
    ['a body that is no JSON', add, { method: 'POST', headers, body: '{' }, 400],
    ['a long path', `/${'x'.repeat(10_000)}`, { headers }, 404],
    ['a method that there is not', '/', { method: 'TRACE', headers }, 404],
  ])('%s', async (_, path, question, status) => {
    expect((await ask(guarded.url, path, question)).status).toBe(status);
  });

  it.each([
    'no HTTP at all\r\n\r\n',
    'GET \\queues HTTP/1.1\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: x\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    'GET /\0 HTTP/1.1\r\n\r\n',
  ])('raw bytes: %j', async (bytes) => {
    const { hostname, port } = new URL(guarded.url);
    const socket = connect(Number(port), hostname);
    await once(socket, 'connect');
    socket.end(bytes);
    expect(await text(socket)).toMatch(/^HTTP\/1.1 400 /);
  });

  it('a header too large', async () => {
    // The server may hang up before all of it is sent, and then its answer is lost on the way.
    const answer = ask(guarded.url, '/', { headers: { 'x-large': 'x'.repeat(40_000) } });
    expect(await answer.then(({ status }) => status).catch(() => 431)).toBe(431);
  });

  it('after all of them it still answers', async () => {
    expect((await ask(guarded.url, '/readyz')).status).toBe(200);
  });
});

describe('without credentials', () => {
  it.each([
    ['localhost', 200],
    ['127.0.0.1:3000', 200],
    ['[::1]:3000', 200],
    ['LOCALHOST', 200],
    ['evil.example', 403],
    ['127.0.0.1.evil.example', 403],
    ['localhost.evil.example:3000', 403],
    ['10.0.0.1', 403],
  ])('asked as %s it answers %i', async (host, status) => {
    for (const path of ['/', '/queues', '/metrics', '/readyz']) {
      expect((await ask(open.url, path, { headers: { host } })).status).toBe(status);
    }
  });

  it.each(['0.0.0.0', '::', '10.1.2.3', 'budgets.example', 'localhost.example', '128.0.0.1'])(
    'it is not served on %s',
    async (host) => {
      expect(isLoopback(host)).toBe(false);
      expect(findExposure({ host, credentials: CREDENTIALS })).toBeNull();
      const options = { host, port: 0, credentials: undefined, readOnly: true, onError() {} };
      await expect(startWebServer(options, [])).rejects.toThrow('open to other machines');
    },
  );

  it('start refuses an address beyond loopback, and names what to set', async () => {
    const env = { DATABASE_URL: database.worker.url, GIFT_BUDGETS_DASHBOARD_HOST: '0.0.0.0' };
    const { code, out, err } = await runProgram(['start'], env);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toBe(
      'error: the pages would be open to other machines (GIFT_BUDGETS_DASHBOARD_HOST is 0.0.0.0): ' +
        'set GIFT_BUDGETS_DASHBOARD_USER and GIFT_BUDGETS_DASHBOARD_PASSWORD, or ' +
        'GIFT_BUDGETS_DASHBOARD_HOST=127.0.0.1\n',
    );
  });
});

it('every page says that nothing foreign may run in it, frame it or keep it', async () => {
  for (const path of ['/', '/queues', '/overview.js', '/metrics', '/no-such-page']) {
    const { headers } = await ask(open.url, path);
    const policy = headers['content-security-policy'] as string;
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self';");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    });
    expect(headers['access-control-allow-origin']).toBeUndefined();
  }
  expect((await ask(open.url, '/')).headers['cache-control']).toBe('no-store');
});
