// The keeper of one embedded PostgreSQL: starts it, tells its URL on standard output, and stops it
// when standard input ends, that is, when the process that started the keeper is gone.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { binaries, type Binaries } from './binaries.ts';
import type { EmbeddedPostgresOptions } from './server.ts';
import { serverUser } from './server-user.ts';

const USER = 'gift_budgets';
const IDLE_POLLS = 2;
const IDLE_POLL_MS = 300;

const options = JSON.parse(process.argv[2]!) as EmbeddedPostgresOptions;
const parentGone = new Promise<void>((resolve) => {
  process.stdin
    .on('end', resolve)
    .on('close', resolve)
    .on('error', () => resolve())
    .resume();
});
// The keeper goes when its users are gone, not when a terminal or a supervisor says so.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});

const shared = options.directory !== undefined;
const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'gift-budgets-')));
const owner = await serverUser();
try {
  const programs = await binaries(directory, owner);
  try {
    await keep(programs.native);
  } finally {
    await programs.cleanUp();
  }
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
} finally {
  if (!shared) await rm(directory, { recursive: true, force: true });
}

async function keep(native: Binaries): Promise<void> {
  const data = join(directory, 'data');
  await mkdir(directory, { recursive: true });
  if (owner) await chown(directory, owner.uid, owner.gid);
  await chmod(directory, 0o700);
  const secret = await prepareData(native, data);
  const port = await freePort();
  await start(native, data, port);
  const url = `postgres://${USER}:${secret}@127.0.0.1:${port}/postgres`;
  try {
    await writeFile(join(directory, 'server.json'), JSON.stringify({ url }), { mode: 0o600 });
    process.stdout.write(`${JSON.stringify({ url })}\n`);
    await parentGone;
    if (shared) await untilUnused(url);
  } finally {
    await rm(join(directory, 'server.json'), { force: true });
    await run(native.pg_ctl, ['stop', '-D', data, '-m', shared ? 'fast' : 'immediate', '-w']);
  }
}

/** Creates the data directory, whole or not at all, and returns the password of its user. */
async function prepareData(native: Binaries, data: string): Promise<string> {
  const secret = randomBytes(18).toString('base64url');
  const secretFile = join(directory, 'secret');
  const write = async (): Promise<void> => {
    await writeFile(secretFile, secret, { mode: 0o600 });
    if (owner) await chown(secretFile, owner.uid, owner.gid);
  };
  if (existsSync(join(data, 'PG_VERSION'))) {
    return (await readFile(secretFile, 'utf8')).trim();
  }
  await write();
  const unfinished = join(directory, 'data.new');
  await rm(unfinished, { recursive: true, force: true });
  const access = ['-U', USER, '--pwfile', secretFile, '--auth', 'scram-sha-256'];
  const text = ['--encoding', 'UTF8', '--locale', 'C'];
  await run(native.initdb, ['-D', unfinished, ...access, ...text, '--no-sync']);
  await rename(unfinished, data);
  return secret;
}

async function start(native: Binaries, data: string, port: number): Promise<void> {
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    jit: 'off',
    // What nobody keeps need not survive a power cut.
    ...(shared ? {} : { fsync: 'off', full_page_writes: 'off' }),
    ...options.settings,
  };
  const flags = Object.entries(settings).map(([name, value]) => `-c ${name}='${value}'`);
  const log = join(directory, 'server.log');
  await run(native.pg_ctl, ['start', '-D', data, '-w', '-l', log, '-o', flags.join(' ')]);
}

/** Waits until no connection but its own has been seen for a moment. */
async function untilUnused(url: string): Promise<void> {
  for (let unused = 0; unused < IDLE_POLLS;) {
    await sleep(IDLE_POLL_MS);
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    try {
      await client.connect();
      const { rows } = await client.query<{ others: number }>(
        `select count(*)::int as others from pg_stat_activity
          where backend_type = 'client backend' and pid <> pg_backend_pid()`,
      );
      unused = rows[0]!.others === 0 ? unused + 1 : 0;
    } catch {
      return;
    } finally {
      await client.end().catch(() => {});
    }
  }
}

/** Runs a program as the server's user; an error carries what it said. */
async function run(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, {
    cwd: directory,
    // pg_ctl's server would keep inherited pipes open, so standard output goes to a file.
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LC_ALL: 'C', LANG: 'C' },
    ...owner,
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject).on('exit', resolve);
  });
  child.stderr.destroy();
  if (code !== 0) {
    const log = await lastWords();
    throw new Error(`${program.split('/').pop()} failed: ${said.trim()}${log}`);
  }
}

async function lastWords(): Promise<string> {
  const log = await readFile(join(directory, 'server.log'), 'utf8').catch(() => '');
  return log === '' ? '' : `\n${log.trim().split('\n').slice(-5).join('\n')}`;
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.on('error', reject).listen(0, '127.0.0.1', resolve);
  });
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
