import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

export interface EmbeddedPostgres {
  /** postgres://… with a password, on a free port of 127.0.0.1. */
  readonly url: string;
  /** Ends our use of it. A private server is gone then; a shared one once nobody uses it. */
  stop(): Promise<void>;
}

export interface EmbeddedPostgresOptions {
  /**
   * A directory that keeps the data and is shared: whoever names it while a server runs on it
   * uses that one. Without it the server is private, and gone with its data afterwards.
   */
  readonly directory?: string;
  /** Server settings, e.g. { max_connections: '300' }; of a private server, or of the first user. */
  readonly settings?: Readonly<Record<string, string>>;
}

const KEEPER = fileURLToPath(
  new URL(import.meta.url.endsWith('.ts') ? './keeper.ts' : './keeper.js', import.meta.url),
);

const START_TRIES_MAX = 60;
const START_RETRY_MS = 500;

/**
 * Starts PostgreSQL from the binaries of an npm package, or finds it running. A keeper process of
 * its own owns the server: it is told of our end by the end of a pipe, so it cleans up after a
 * SIGKILL too, and is in a process group of its own, so Ctrl-C does not reach it.
 *
 * @throws {Error} with the server's last words if it cannot be started.
 */
export async function startEmbeddedPostgres(
  options: EmbeddedPostgresOptions = {},
): Promise<EmbeddedPostgres> {
  for (let attempt = 1; ; attempt += 1) {
    const running = options.directory && (await findRunning(options.directory));
    if (running) return running;
    try {
      return await startKeeper(options);
    } catch (error) {
      // Somebody else may be starting or stopping a server on the same directory just now.
      if (options.directory === undefined || attempt >= START_TRIES_MAX) throw error;
      if (!(error as Error).message.includes('postmaster.pid')) throw error;
      await sleep(START_RETRY_MS);
    }
  }
}

/** Uses a server that another process keeps, for as long as a connection of ours is open. */
async function findRunning(directory: string): Promise<EmbeddedPostgres | null> {
  try {
    const announcement = join(directory, 'server.json');
    const announced = await readFile(announcement, 'utf8');
    const { url } = JSON.parse(announced) as { url: string };
    const client = new pg.Client({
      connectionString: url,
      application_name: 'gift-budgets user of the embedded server',
    });
    client.on('error', () => {});
    await client.connect();
    // A keeper that is about to stop takes its announcement back before it looks for us once more.
    if ((await readFile(announcement, 'utf8').catch(() => null)) !== announced) {
      await client.end();
      return null;
    }
    return { url, stop: async () => await client.end() };
  } catch {
    return null;
  }
}

async function startKeeper(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const keeper = spawn(process.execPath, [KEEPER, JSON.stringify(options)], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // Our end of the pipe going away is what stops it, whatever else it may have missed.
  keeper.stdin.on('error', () => {});
  let complaints = '';
  keeper.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  const exited = once(keeper, 'exit');
  const line = await Promise.race([
    once(createInterface(keeper.stdout), 'line').then(([text]) => text as string),
    // Not until its last words are read, too.
    once(keeper, 'close').then(() => null),
  ]);
  if (line === null) {
    throw new Error(`the embedded PostgreSQL did not start: ${complaints.trim()}`);
  }
  detach(keeper);
  const { url } = JSON.parse(line) as { url: string };
  return {
    url,
    async stop() {
      keeper.ref();
      keeper.stdin.end();
      // A shared server is left to its keeper, which waits for other users.
      if (options.directory === undefined) await exited;
      else keeper.unref();
    },
  };
}

/** The keeper must not keep this process alive. */
function detach(keeper: ChildProcess): void {
  keeper.unref();
  for (const stream of [keeper.stdin, keeper.stdout, keeper.stderr]) {
    (stream as unknown as { unref(): void }).unref();
  }
}
