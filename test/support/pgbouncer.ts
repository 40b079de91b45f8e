import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { freePort } from './outages.ts';

const PROGRAM = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer', '/usr/local/bin/pgbouncer'].find(
  (path) => existsSync(path),
);

const HOW_TO_GET_IT =
  'no PgBouncer: its suite is skipped; "apt-get install pgbouncer" to run it (its service is not needed)';

/** Whether there is one; says how to get it where there is none, and fails where it is required. */
export function hasPgBouncer(): boolean {
  if (PROGRAM !== undefined) return true;
  if (process.env.REQUIRE_PGBOUNCER === '1') {
    throw new Error(`REQUIRE_PGBOUNCER=1, but ${HOW_TO_GET_IT}`);
  }
  console.warn(HOW_TO_GET_IT);
  return false;
}

export interface PgBouncer {
  /** The same database, through the pooler. */
  through(url: string): string;
  stop(): Promise<void>;
}

/** An unprivileged user that is on every Linux: PgBouncer does not run as root. */
const NOBODY = 65_534;

/**
 * Starts one before the server of these URLs, in transaction mode, as Debian configures it otherwise.
 * With few connections to the server every transaction is soon on another one.
 *
 * @param urls of the users that may connect.
 */
export async function startPgBouncer(
  urls: readonly string[],
  { serverConnectionsMax = 3 } = {},
): Promise<PgBouncer> {
  const directory = await mkdtemp(join(tmpdir(), 'gift-budgets-pgbouncer-'));
  const port = await freePort();
  const { hostname, port: serverPort } = new URL(urls[0]!);
  const users = urls.map((url) => {
    const { username, password } = new URL(url);
    return `"${decodeURIComponent(username)}" "${decodeURIComponent(password)}"`;
  });
  await writeFile(join(directory, 'users.txt'), users.join('\n'));
  const configuration = join(directory, 'pgbouncer.ini');
  await writeFile(
    configuration,
    `[databases]
* = host=${hostname} port=${serverPort || 5432}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = plain
auth_file = ${join(directory, 'users.txt')}
pool_mode = transaction
default_pool_size = ${serverConnectionsMax}
server_round_robin = 1
max_client_conn = 200
`,
  );
  const isRoot = process.getuid?.() === 0;
  if (isRoot) {
    await chmod(directory, 0o755);
    await chown(directory, NOBODY, NOBODY);
  }
  const server = spawn(PROGRAM!, [configuration], {
    cwd: directory,
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(isRoot && { uid: NOBODY, gid: NOBODY }),
  });
  const through = (url: string): string => {
    const pooled = new URL(url);
    pooled.host = `127.0.0.1:${port}`;
    return pooled.href;
  };
  await answers(through(urls[0]!), server);
  return {
    through,
    async stop() {
      const exited = once(server, 'exit');
      server.kill('SIGINT');
      await Promise.race([exited, new Promise((resolve) => setTimeout(resolve, 5_000))]);
      server.kill('SIGKILL');
      await rm(directory, { recursive: true });
    },
  };
}

async function answers(url: string, server: ChildProcess): Promise<void> {
  let log = '';
  server.stderr!.setEncoding('utf8').on('data', (text: string) => (log += text));
  for (const deadline = performance.now() + 30_000; ;) {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    try {
      await client.connect();
      return await client.end();
    } catch (error) {
      if (performance.now() > deadline || server.exitCode !== null) {
        throw new Error(`PgBouncer does not answer: ${log.slice(-2_000)}`, { cause: error });
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
