import type { Queue } from 'bullmq';
import { queueBoard } from '../../src/operations/queue-board.ts';
import { startWebServer, type WebServer } from '../../src/operations/web-server.ts';

/** Serves bull-board alone, with the queue. */
export async function startBoard(queue: Queue): Promise<WebServer> {
  const onError = (error: Error): never => {
    throw error;
  };
  const where = { host: '127.0.0.1', port: 0, credentials: undefined, readOnly: false, onError };
  return await startWebServer(where, [queueBoard(queue, false)]);
}
