import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { FastifyAdapter } from '@bull-board/fastify';
import type { Queue } from 'bullmq';
import type { FastifyInstance } from 'fastify';

export const QUEUE_BOARD_PATH = '/queues';

/**
 * Serves bull-board with the gift-events queue.
 *
 * @param readOnly whether it offers no actions; that none is taken is the server's to see to.
 */
export function queueBoard(queue: Queue, readOnly: boolean) {
  return async (server: FastifyInstance): Promise<void> => {
    const board = new FastifyAdapter();
    board.setBasePath(QUEUE_BOARD_PATH);
    const adapter = new BullMQAdapter(queue, { readOnlyMode: readOnly });
    adapter.setFormatter('data', hideOwnFields);
    createBullBoard({
      queues: [adapter],
      serverAdapter: board,
      options: {
        uiConfig: {
          boardTitle: 'gift-budgets',
          miscLinks: [{ text: 'Overview', url: '/' }],
        },
      },
    });
    await server.register(board.registerPlugin(), { prefix: QUEUE_BOARD_PATH });
  };
}

const HIDDEN = '(not shown)';

/** Those of the contract, which hold ids, and what stands in for data that nobody can read. */
const SHOWN_FIELDS = new Set([
  'version',
  'affected',
  'giftId',
  'occurredAt',
  'source',
  'personId',
  'occasionId',
  'unreadable',
]);

/**
 * What a producer adds of its own may be names and notes, and nobody needs them here. A job that is
 * edited or copied on the page loses them, which nothing of ours reads anyway.
 */
export function hideOwnFields(data: unknown): unknown {
  if (Array.isArray(data)) return data.map(hideOwnFields);
  if (typeof data !== 'object' || data === null) return data;
  const fields = Object.entries(data).map(([name, value]) => [
    name,
    SHOWN_FIELDS.has(name) ? hideOwnFields(value) : HIDDEN,
  ]);
  return Object.fromEntries(fields) as unknown;
}
