import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { QueueConnection } from '../../src/queue.ts';

export type OwnRedis = ReturnType<typeof createOwnRedis>;

/** A Redis of the test's own, always on the same port, that it may start and end as it likes. */
export function createOwnRedis(onPort: number) {
  let server: { process: ChildProcess; directory: string } | undefined;
  const url = `redis://127.0.0.1:${onPort}`;
  async function ask(command: string, ...args: string[]): Promise<unknown> {
    const admin = new Redis(url, { retryStrategy: () => 50, maxRetriesPerRequest: 100 });
    admin.on('error', () => {});
    return await admin.call(command, ...args).finally(() => admin.disconnect());
  }
  async function run(command: string, ...args: string[]): Promise<void> {
    await ask(command, ...args);
  }
  return {
    connection: { backend: 'redis', url } satisfies QueueConnection,
    ask,
    run,
    async start() {
      const directory = await mkdtemp(join(tmpdir(), 'gift-budgets-redis-'));
      const options = ['--port', String(onPort), '--bind', '127.0.0.1', '--save', ''];
      server = {
        process: spawn('redis-server', options, { cwd: directory, stdio: 'ignore' }),
        directory,
      };
      await run('ping');
    },
    freeze: () => server?.process.kill('SIGSTOP'),
    thaw: () => server?.process.kill('SIGCONT'),
    async stop() {
      if (server === undefined) return;
      const { process, directory } = server;
      server = undefined;
      const exited = once(process, 'exit');
      process.kill('SIGKILL');
      await exited;
      await rm(directory, { recursive: true });
    },
  };
}

export type Proxy = ReturnType<typeof createProxy>;

/** Stands in for a server whose port it takes: it can be away, or take bytes and pass none on. */
export function createProxy(onPort: number, { hostname, port }: URL) {
  let server: Server | undefined;
  let isFrozen = false;
  const sockets = new Set<Socket>();
  function forward(near: Socket): void {
    const far = connect(Number(port || 5432), hostname);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on('data', (bytes) => isFrozen || to.write(bytes));
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
    }
  }
  return {
    async start() {
      server = createServer(forward).listen(onPort, '127.0.0.1');
      await once(server, 'listening');
    },
    freeze: () => (isFrozen = true),
    thaw: () => (isFrozen = false),
    async stop() {
      if (server === undefined) return;
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      server = undefined;
      await closed;
    },
  };
}

export function isOnPath(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  return port;
}

/** Fails where the work would hang. */
export async function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  const timer = new AbortController();
  const tooLate = sleep(timeoutMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`not settled after ${timeoutMs} ms`);
  });
  return await Promise.race([work, tooLate]).finally(() => {
    tooLate.catch(() => {});
    timer.abort();
  });
}
