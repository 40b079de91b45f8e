import type { FastifyInstance } from 'fastify';
import { readFile } from 'node:fs/promises';
import type { Overview } from './overview.ts';
import { overviewBody, overviewPage } from './overview-page.ts';

const ASSETS = {
  '/overview.css': 'text/css; charset=utf-8',
  '/overview.js': 'text/javascript; charset=utf-8',
  '/overview.svg': 'image/svg+xml',
} as const;

const HTML = 'text/html; charset=utf-8';

/** Serves the overview at `/`, and what its script asks for every other second. */
export function overviewRoutes(read: () => Promise<Overview>) {
  return async (server: FastifyInstance): Promise<void> => {
    server.get('/', async (_request, reply) => {
      return await reply.type(HTML).send(overviewPage(await read()).text);
    });
    server.get('/overview', async (_request, reply) => {
      return await reply.type(HTML).send(overviewBody(await read()).text);
    });
    for (const [path, type] of Object.entries(ASSETS)) {
      const content = await readFile(new URL(`./pages${path}`, import.meta.url));
      server.get(path, async (_request, reply) => await reply.type(type).send(content));
    }
  };
}
