import helmet from '@fastify/helmet';
import { fastify, type FastifyError, type FastifyInstance } from 'fastify';
import { type AccessOptions, guardAccess, isLoopback } from './access.ts';

export interface WebServer {
  /** Where to look, e.g. http://127.0.0.1:3000 */
  readonly url: string;
  stop(): Promise<void>;
}

export interface WebServerOptions extends AccessOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** Told of errors that are ours, not the asker's. */
  readonly onError: (error: Error) => void;
}

/** Adds its routes. */
export type WebPart = (server: FastifyInstance) => Promise<void>;

/** Nobody has more than a job's data to send. */
const BODY_BYTES_MAX = 65_536;
const REQUEST_TIMEOUT_MS = 10_000;

/** bull-board's page has a style of its own in it, but no script; nothing comes from elsewhere. */
const POLICY = {
  defaultSrc: ["'none'"],
  scriptSrc: ["'self'"],
  styleSrc: ["'self'", "'unsafe-inline'"],
  imgSrc: ["'self'", 'data:'],
  fontSrc: ["'self'"],
  connectSrc: ["'self'"],
  baseUri: ["'self'"],
  formAction: ["'none'"],
  frameAncestors: ["'none'"],
};

/** Starts the one HTTP server with what it is to serve, all of it behind one guard. */
export async function startWebServer(
  options: WebServerOptions,
  parts: readonly WebPart[],
): Promise<WebServer> {
  const exposure = findExposure(options);
  if (exposure !== null) throw new Error(exposure);
  const server = fastify({
    forceCloseConnections: true,
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
  });
  await server.register(helmet, {
    contentSecurityPolicy: { useDefaults: false, directives: POLICY },
    // Whoever puts TLS before this has his own to say about it.
    strictTransportSecurity: false,
  });
  await guardAccess(server, options);
  server.addHook('onSend', async (_request, reply) => {
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
  });
  server.setErrorHandler<FastifyError>(async (error, _request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) options.onError(error);
    await reply
      .status(status)
      .type('text/plain; charset=utf-8')
      .send(status >= 500 ? 'internal error; the log says more\n' : `${error.message}\n`);
  });
  server.setNotFoundHandler(async (_request, reply) => {
    await reply.status(404).type('text/plain; charset=utf-8').send('there is no such page\n');
  });
  for (const part of parts) await server.register(part);
  const url = await server.listen({ host: options.host, port: options.port });
  return { url, stop: async () => await server.close() };
}

/** Says what to set where others than this machine could reach the pages without credentials. */
export function findExposure({
  host,
  credentials,
}: Pick<WebServerOptions, 'host' | 'credentials'>): string | null {
  if (credentials !== undefined || isLoopback(host)) return null;
  return (
    `the pages would be open to other machines (GIFT_BUDGETS_DASHBOARD_HOST is ${host}): set ` +
    'GIFT_BUDGETS_DASHBOARD_USER and GIFT_BUDGETS_DASHBOARD_PASSWORD, or ' +
    'GIFT_BUDGETS_DASHBOARD_HOST=127.0.0.1'
  );
}
