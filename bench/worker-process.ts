import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { QueueConnection } from '../src/queue.ts';
import type { WorkerSide } from './worker-sides.ts';

export interface WorkerProcess {
  readonly pid: number;
  stop(): Promise<void>;
}

/** `gift-budgets start` as it is deployed, in a process of its own. */
export async function startOurs(
  databaseUrl: string,
  queue: QueueConnection,
  settings: Readonly<Record<string, string>> = {},
  onLogLine: (line: string) => void = () => {},
): Promise<WorkerProcess> {
  const env = {
    NODE_ENV: 'production',
    DATABASE_URL: databaseUrl,
    ...(queue.backend === 'redis' && { REDIS_URL: queue.url }),
    GIFT_BUDGETS_DASHBOARD_PORT: '0',
    ...settings,
  };
  return await startProcess(['../src/cli.ts', 'start'], env, onLogLine);
}

/** A worker process of a side that ours is compared with. */
export async function startSide(side: WorkerSide): Promise<WorkerProcess> {
  return await startProcess(['./worker-sides.ts', JSON.stringify(side)], {});
}

async function startProcess(
  [program, ...args]: [string, ...string[]],
  env: Record<string, string>,
  onLogLine: (line: string) => void = () => {},
): Promise<WorkerProcess> {
  const path = fileURLToPath(new URL(program, import.meta.url));
  const child = spawn(process.execPath, [path, ...args], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(child, 'exit');
  const lines: string[] = [];
  const started = new Promise<void>((resolve) => {
    createInterface({ input: child.stderr }).on('line', (line) => {
      onLogLine(line);
      lines.push(line);
      if (lines.length > 20) lines.shift();
      if (line.includes('started')) resolve();
    });
  });
  await Promise.race([
    started,
    exited.then(() => {
      throw new Error(`${program} ended before it had started:\n${lines.join('\n')}`);
    }),
  ]);
  return {
    pid: child.pid!,
    async stop() {
      child.kill();
      await exited;
    },
  };
}
