// Runs the tests that a database decides on a PostgreSQL of the system instead of the embedded one: on a
// private cluster, made for the run and gone after it. What follows on the command line is vitest's.
//
//   npm run test:postgres              on Debian's postgresql-15
//   POSTGRES_BIN=/…/bin npm run test:postgres
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../test/support/outages.ts';

const bin = process.env.POSTGRES_BIN ?? '/usr/lib/postgresql/15/bin';
if (!existsSync(join(bin, 'postgres'))) {
  console.error(
    `no PostgreSQL in ${bin}: "apt-get install postgresql-15", or set POSTGRES_BIN ` +
      '(its own cluster and service are not needed)',
  );
  process.exit(1);
}

/** PostgreSQL does not run as root; the package has made a user for it. */
const user = process.getuid?.() === 0 ? await userOfPackage() : null;
const directory = await mkdtemp(join(tmpdir(), 'gift-budgets-postgres-'));
if (user !== null) await chown(directory, user.uid, user.gid);
const data = join(directory, 'data');
const port = await freePort();
let code = 1;
try {
  run('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync');
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    'unix_socket_directories=',
    'max_connections=300',
    'max_prepared_transactions=10',
    'fsync=off',
  ];
  const options = settings.map((setting) => `-c ${setting}`).join(' ');
  run('pg_ctl', '-D', data, '-w', '-l', join(directory, 'log'), '-o', options, 'start');
  const args = ['run', '--config', 'vitest.postgres.config.ts', ...process.argv.slice(2)];
  const tests = spawn('vitest', args, {
    stdio: 'inherit',
    env: { ...process.env, DATABASE_URL: `postgres://postgres@127.0.0.1:${port}/postgres` },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => tests.kill(signal));
  }
  const [exitCode] = (await once(tests, 'exit')) as [number | null];
  code = exitCode ?? 1;
} finally {
  if (existsSync(join(data, 'postmaster.pid'))) run('pg_ctl', '-D', data, '-m', 'fast', 'stop');
  await rm(directory, { recursive: true });
}
process.exit(code);

function run(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(join(bin, program), args, {
    cwd: directory,
    // A server that inherited our outputs would keep them open.
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    ...user,
  });
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
}

async function userOfPackage(): Promise<{ uid: number; gid: number }> {
  const line = /^postgres:[^:]*:(\d+):(\d+):/m.exec(await readFile('/etc/passwd', 'utf8'));
  if (line === null)
    throw new Error('there is no user postgres, and PostgreSQL does not run as root');
  return { uid: Number(line[1]), gid: Number(line[2]) };
}
