import basicAuth from '@fastify/basic-auth';
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { createHash, timingSafeEqual } from 'node:crypto';
import { BlockList, isIP } from 'node:net';

export interface Credentials {
  readonly user: string;
  readonly password: string;
}

export interface AccessOptions {
  /** Without them everybody on this machine may see and change everything. */
  readonly credentials: Credentials | undefined;
  /** Refuses whatever is not a mere look. */
  readonly readOnly: boolean;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answers also without credentials, but then without details. */
    readonly isPublic?: boolean;
  }
  interface FastifyRequest {
    /** Whether details may be told: the credentials are right, or there are none. */
    isTrusted: boolean;
  }
}

/** Wrong credentials that one address may try in a minute. */
const FAILURES_MAX = 10;

const READING: ReadonlySet<string> = new Set(['GET', 'HEAD']);

/**
 * Guards every route there is or is not, before anything of the request is looked at: a route is
 * open only if its own configuration says so, so no way of writing a path leads round it.
 */
export async function guardAccess(server: FastifyInstance, options: AccessOptions): Promise<void> {
  const { credentials, readOnly } = options;
  server.decorateRequest('isTrusted', false);
  const checkCredentials = credentials && (await createCredentialsCheck(server, credentials));
  server.addHook('onRequest', async (request, reply) => {
    if (checkCredentials === undefined) mustBeAskedAsLoopback(request);
    else if (request.headers.authorization !== undefined || !isPublic(request)) {
      await checkCredentials(request, reply);
    }
    request.isTrusted =
      checkCredentials === undefined || request.headers.authorization !== undefined;
    if (READING.has(request.method)) return;
    if (readOnly) {
      throw new RefusedError(403, 'read only (GIFT_BUDGETS_DASHBOARD_READ_ONLY is true)');
    }
    mustBeSameOrigin(request);
  });
}

class RefusedError extends Error {
  override readonly name = 'RefusedError';
  readonly statusCode: number;
  constructor(statusCode: number, message: string) {
    super(message);
    this.statusCode = statusCode;
  }
}

function isPublic(request: FastifyRequest): boolean {
  return request.routeOptions.config.isPublic === true;
}

async function createCredentialsCheck(server: FastifyInstance, credentials: Credentials) {
  await server.register(rateLimit, { global: false, max: FAILURES_MAX, timeWindow: 60_000 });
  await server.register(basicAuth, {
    authenticate: { realm: 'gift-budgets' },
    async validate(user, password) {
      // Both are compared, whatever comes of the first.
      const [isUser, isPassword] = [
        isSame(user, credentials.user),
        isSame(password, credentials.password),
      ];
      if (!isUser || !isPassword) throw new RefusedError(401, 'wrong user or password');
    },
  });
  const countFailures = server.createRateLimit();
  return async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    // Past the limit right ones are refused too: otherwise guessing could go on, only unanswered.
    const failures = await countFailures(request, { increment: false });
    if (!failures.isAllowed && failures.remaining === 0) {
      reply.header('retry-after', failures.ttlInSeconds);
      throw new RefusedError(429, 'too many wrong credentials; wait a minute');
    }
    try {
      await new Promise<void>((resolve, reject) => {
        server.basicAuth(request, reply, (error) => (error ? reject(error) : resolve()));
      });
    } catch (error) {
      if (request.headers.authorization !== undefined) await countFailures(request);
      throw error;
    }
  };
}

/** In constant time: digests have one length, whatever was given. */
function isSame(given: string, right: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(right));
}

/**
 * Without credentials only this machine may ask, and its browser must not be led here by a foreign
 * page whose host name was made to point to loopback (DNS rebinding).
 */
function mustBeAskedAsLoopback({ hostname }: FastifyRequest): void {
  if (isLoopback(hostname)) return;
  throw new RefusedError(
    403,
    'without GIFT_BUDGETS_DASHBOARD_USER and GIFT_BUDGETS_DASHBOARD_PASSWORD this is served as ' +
      'localhost only',
  );
}

/** A browser sends credentials along with what a foreign page has it post; only its headers tell. */
function mustBeSameOrigin({ headers }: FastifyRequest): void {
  const site = headers['sec-fetch-site'];
  const { origin, host } = headers;
  const isForeign =
    site === undefined
      ? origin !== undefined && (!URL.canParse(origin) || new URL(origin).host !== host)
      : site !== 'same-origin' && site !== 'none';
  if (isForeign) throw new RefusedError(403, 'refused: another site asked for this');
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** Whether a host name or address means this machine alone. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  const version = isIP(bare);
  return version === 0
    ? bare === 'localhost'
    : LOOPBACK.check(bare, version === 4 ? 'ipv4' : 'ipv6');
}
