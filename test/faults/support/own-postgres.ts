import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { inject, onTestFinished } from 'vitest';
import { startEmbeddedPostgres } from '../../../src/embedded/server.ts';
import { deploy, urlAs } from '../../support/roles.ts';

/** A PostgreSQL server of the test's own, with one migrated database. */
export interface OwnPostgres {
  readonly url: string;
  readonly worker: { readonly url: string };
  readonly upstream: { readonly url: string };
  /** Looks on as `OBSERVER`; it connects again after a restart. */
  readonly observer: pg.Pool;
  /** Crashes the server and starts it again; returns once it has recovered. */
  crash(): Promise<void>;
}

/** The application name that the faults spare. */
export const OBSERVER = 'observer';

/** Starts one for the test that calls it; a crash of its processes loses nothing, fsync or not. */
export async function startOwnPostgres(settings: Record<string, string>): Promise<OwnPostgres> {
  const server = await startEmbeddedPostgres({ settings });
  onTestFinished(async () => await server.stop());
  const url = new URL(server.url);
  url.pathname = '/faults';
  const maintenance = new pg.Client({ connectionString: server.url });
  await maintenance.connect();
  await maintenance.query('create database faults');
  const { rows } = await maintenance.query<{ data_directory: string }>('show data_directory');
  await maintenance.end();
  const roles = inject('roles');
  await deploy(url.href, roles);

  const observer = new pg.Pool({
    connectionString: url.href,
    application_name: OBSERVER,
    // A limit that the database sets is not for the one who looks on.
    options: '-c statement_timeout=0',
    max: 4,
    // Whoever has a connection keeps it: there may be no other to be had.
    idleTimeoutMillis: 0,
  });
  observer.on('error', () => {});
  onTestFinished(async () => await observer.end());
  const [worker, upstream] = (['worker', 'upstream'] as const).map((grantee) => ({
    url: urlAs(url.href, roles, grantee),
  }));
  return {
    url: url.href,
    worker: worker!,
    upstream: upstream!,
    observer,
    crash: async () => await crash(rows[0]!.data_directory),
  };
}

async function crash(dataDirectory: string): Promise<void> {
  // The first word of how the server was started is its program, with pg_ctl beside it.
  const [program] = (await readFile(join(dataDirectory, 'postmaster.opts'), 'utf8')).split(' ');
  const { uid, gid } = await stat(dataDirectory);
  const log = join(dirname(dataDirectory), 'server.log');
  await promisify(execFile)(
    join(dirname(program!), 'pg_ctl'),
    ['restart', '-m', 'immediate', '-w', '-D', dataDirectory, '-l', log],
    { uid, gid, cwd: dataDirectory },
  );
}
