import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FastifyAdapter } from '@bull-board/fastify';
import type { Queue } from 'bullmq';
import { fastify } from 'fastify';

export interface Dashboard {
  /** Where to look, e.g. http://127.0.0.1:3000/queues */
  readonly url: string;
  stop(): Promise<void>;
}

const PATH = '/queues';

/**
 * Serves bull-board with the gift-events queue. It has no authentication of its own, so it belongs
 * on loopback.
 *
 * @param port 0 for any free one.
 */
export async function startDashboard(queue: Queue, host: string, port: number): Promise<Dashboard> {
  const board = new FastifyAdapter();
  board.setBasePath(PATH);
  createBullBoard({
    queues: [new BullMQAdapter(queue)],
    serverAdapter: board,
    options: { uiConfig: { boardTitle: 'gift-budgets' } },
  });
  const server = fastify({ forceCloseConnections: true });
  server.get('/', (_request, reply) => reply.redirect(PATH));
  await server.register(board.registerPlugin(), { prefix: PATH });
  const address = await server.listen({ host, port });
  return {
    url: `${address}${PATH}`,
    stop: async () => await server.close(),
  };
}
