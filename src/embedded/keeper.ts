// The keeper of one embedded PostgreSQL: starts it, tells its URL on standard output, and stops it
// when standard input ends, that is, when the process that started the keeper is gone.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { binaries, type Binaries, blockedAt, mustEnter } from './binaries.ts';
import type { EmbeddedPostgresOptions } from './server.ts';
import { serverUser } from './server-user.ts';

const USER = 'gift_budgets';
const IDLE_POLLS = 2;
const IDLE_POLL_MS = 300;

/** The password of USER, inside the data directory so that one rename makes both. */
const SECRET_FILE = 'gift_budgets.secret';
/** What a keeper puts into the directory, and what it leaves behind if it is killed at its work. */
const OURS = /^(data|server\.log)$|^(data\.new|secret|postgresql)\.\d+$/;
const LEFTOVER = /^(?:data\.new|secret|postgresql)\.(\d+)$/;

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
// Nobody may be left to read what it says; that must not end it before it has cleaned up.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

const shared = options.directory !== undefined;
const owner = await serverUser().catch(fail);
// What root creates on the way to the data must be open to the server's user, whatever root's mask.
if (owner) process.umask(0o022);
const directory = options.directory ?? (await privateDirectory().catch(fail));
try {
  await prepareDirectory();
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
  // A start that failed ends at once, though the process that asked for it is still there.
  process.stdin.destroy();
}

function fail(error: unknown): never {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
}

/** Root's own temporary directory is often one that no other user may enter. */
async function privateDirectory(): Promise<string> {
  for (const parent of [tmpdir(), '/tmp', '/var/tmp']) {
    if (existsSync(parent) && (await blockedAt(parent, owner)) === null) {
      return await mkdtemp(join(parent, 'gift-budgets-'));
    }
  }
  return await mkdtemp(join(tmpdir(), 'gift-budgets-'));
}

/** Makes the directory the server's own, unless it is somebody else's: a mistyped /tmp, say. */
async function prepareDirectory(): Promise<void> {
  await mustEnter(directory, owner);
  await mkdir(directory, { recursive: true });
  const entries = await readdir(directory);
  if (entries.length > 0 && !entries.some((name) => OURS.test(name))) {
    throw new Error(
      `${directory} holds something other than an embedded PostgreSQL: ` +
        'choose a new or an empty directory with GIFT_BUDGETS_EMBEDDED_DIRECTORY',
    );
  }
  if (owner) await chown(directory, owner.uid, owner.gid);
  await chmod(directory, 0o700);
  for (const name of entries) {
    const pid = LEFTOVER.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    // An initdb may outlive its keeper for a moment, and write while we remove.
    await rm(join(directory, name), { recursive: true, force: true, maxRetries: 10 });
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function keep(native: Binaries): Promise<void> {
  const data = join(directory, 'data');
  if (!existsSync(data)) await createData(native, data);
  const secret = await readFile(join(data, SECRET_FILE), 'utf8');
  const port = await freePort();
  await start(native, data, port);
  const url = `postgres://${USER}:${secret}@127.0.0.1:${port}/postgres`;
  const announcement = join(directory, 'server.json');
  const announce = async (): Promise<void> =>
    await writeFile(announcement, JSON.stringify({ url, keeperPid: process.pid }), { mode: 0o600 });
  try {
    await announce();
    process.stdout.write(`${JSON.stringify({ url })}\n`);
    await parentGone;
    // Who has found the server in time is seen by the last look, after the announcement is gone.
    for (let used = shared; used;) {
      await untilUnused(url);
      await rm(announcement, { force: true });
      used = await isUsed(url);
      if (used) await announce();
    }
  } finally {
    await rm(announcement, { force: true });
    await run(native.pg_ctl, ['stop', '-D', data, '-m', shared ? 'fast' : 'immediate', '-w']);
  }
}

/**
 * Creates the data directory with its password, whole or not at all: of two keepers that do so at
 * the same time one is first, and both go on with the directory of that one.
 */
async function createData(native: Binaries, data: string): Promise<void> {
  const unfinished = join(directory, `data.new.${process.pid}`);
  const secretFile = join(directory, `secret.${process.pid}`);
  await writeFile(secretFile, randomBytes(18).toString('base64url'), { mode: 0o600 });
  if (owner) await chown(secretFile, owner.uid, owner.gid);
  const access = ['-U', USER, '--pwfile', secretFile, '--auth', 'scram-sha-256'];
  const text = ['--encoding', 'UTF8', '--locale', 'C'];
  await run(native.initdb, ['-D', unfinished, ...access, ...text, '--no-sync']);
  await rename(secretFile, join(unfinished, SECRET_FILE));
  try {
    await rename(unfinished, data);
  } catch (error) {
    if (!existsSync(data)) throw error;
    await rm(unfinished, { recursive: true, force: true });
  }
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

/** Waits until no connection has been seen for a moment. */
async function untilUnused(url: string): Promise<void> {
  for (let unused = 0; unused < IDLE_POLLS;) {
    await sleep(IDLE_POLL_MS);
    unused = (await isUsed(url)) ? 0 : unused + 1;
  }
}

/** Whether there is a connection but our own; a server that has no room for ours is used. */
async function isUsed(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{ used: boolean }>(
      `select exists (select from pg_stat_activity
                       where backend_type = 'client backend' and pid <> pg_backend_pid()) as used`,
    );
    return rows[0]!.used;
  } catch (error) {
    return (error as { code?: string }).code !== 'ECONNREFUSED';
  } finally {
    await client.end().catch(() => {});
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
    const log = args[0] === 'start' ? await lastWords() : '';
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
