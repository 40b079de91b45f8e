import { readFile } from 'node:fs/promises';

/** The user that PostgreSQL runs as; null where that is simply us. */
export type ServerUser = { readonly uid: number; readonly gid: number } | null;

/**
 * PostgreSQL refuses to run as root. Root then runs it as `postgres` if there is such a user, else
 * as `nobody`; none is created.
 */
export async function serverUser(): Promise<ServerUser> {
  if (process.getuid?.() !== 0) return null;
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  const found = ['postgres', 'nobody'].map((name) => lines.find((line) => line[0] === name));
  const [, , uid, gid] = found[0] ?? found[1] ?? [];
  if (uid === undefined || gid === undefined) {
    throw new Error(
      'PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody: ' +
        'run as another user, or set DATABASE_URL',
    );
  }
  return { uid: Number(uid), gid: Number(gid) };
}
