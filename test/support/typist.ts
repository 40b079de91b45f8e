import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { dirname, delimiter, join } from 'node:path';
import { ROOT } from './documents.ts';

/** For npm: what it has already is not asked for again, and nothing is printed but errors. */
export const QUIETLY = '--prefer-offline --no-audit --no-fund --loglevel=error';

export interface Run {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/**
 * Runs a command as somebody types it there, with the Node that `engines` asks for on the PATH.
 *
 * @param identity of another user than us, which only root may take on.
 */
export async function run(
  cwd: string,
  command: string,
  env: NodeJS.ProcessEnv = {},
  identity: { uid?: number; gid?: number } = {},
): Promise<Run> {
  const child = spawn(command, {
    cwd,
    shell: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...typistsEnvironment(), ...env },
    ...identity,
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out, err };
}

/** @throws what it said, unless it ends with 0. */
export async function mustRun(
  cwd: string,
  command: string,
  env: NodeJS.ProcessEnv = {},
): Promise<string> {
  const { code, out, err } = await run(cwd, command, env);
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${out}${err}`);
  return out;
}

/** Ours, without what npm and the test runner put there for this run: npm would take our folder for its. */
export function typistsEnvironment(): NodeJS.ProcessEnv {
  const ours =
    /^(npm_(?!config_(cache|registry|userconfig)$)|INIT_CWD$|NODE(?!_EXTRA_CA_CERTS$)|VITEST|TEST|NO_COLOR|FORCE_COLOR)/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
  const path = (env.PATH ?? '').split(delimiter).filter((way) => !way.includes('node_modules'));
  return { ...env, PATH: [dirname(process.execPath), ...path].join(delimiter), NO_COLOR: '1' };
}

/** Copies the files that are tracked or could be, as they are in the working tree. */
export async function copyRepository(copy: string): Promise<string> {
  // A checkout may well belong to another user than the one who tests it.
  const git = `git -c 'safe.directory=*'`;
  const listed = await mustRun(ROOT, `${git} ls-files --cached --others --exclude-standard`);
  for (const file of listed.trim().split('\n')) {
    // Not there: removed, but not committed yet.
    if (existsSync(join(ROOT, file))) await cp(join(ROOT, file), join(copy, file));
  }
  return copy;
}
