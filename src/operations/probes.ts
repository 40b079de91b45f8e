import type { FastifyInstance } from 'fastify';
import type { Metrics } from './metrics.ts';
import type { Progress } from './progress.ts';
import { readReadiness } from './readiness.ts';
import type { Vitals } from './vitals.ts';

/**
 * What machines ask: `/healthz` (restart this process?), `/readyz` (can it work?), `/metrics`. The
 * first two answer everybody, because a probe has no credentials, but tell why only who may know.
 */
export function probes(vitals: Vitals, progress: Progress, metrics: Metrics) {
  return async (server: FastifyInstance): Promise<void> => {
    const config = { isPublic: true };
    server.get('/healthz', { config }, async (request, reply) => {
      const problem = progress.whatStandsStill();
      const isHealthy = problem === null;
      return await reply
        .status(isHealthy ? 200 : 503)
        .send({ healthy: isHealthy, ...(request.isTrusted && !isHealthy && { problem }) });
    });
    server.get('/readyz', { config }, async (request, reply) => {
      const parts = await readReadiness(vitals);
      const isReady = Object.values(parts).every((problem) => problem === null);
      return await reply
        .status(isReady ? 200 : 503)
        .send({ ready: isReady, ...(request.isTrusted && { problems: parts }) });
    });
    server.get('/metrics', async (_request, reply) => {
      return await reply.type(metrics.contentType).send(await metrics.text());
    });
  };
}
