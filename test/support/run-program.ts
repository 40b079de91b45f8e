import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

/** A `gift-budgets` process of its own, as a user starts it. */
export interface Program {
  readonly pid: number;
  readonly stdin: ChildProcess['stdin'];
  readonly out: string;
  readonly err: string;
  /** Waits until it has written this to either of its outputs; fails if it ends before. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
  kill(signal: NodeJS.Signals): void;
  /** Signals the whole process group, as a terminal does on Ctrl-C. */
  killGroup(signal: NodeJS.Signals): void;
  /** Waits for its end. */
  ended(): Promise<ProgramEnd>;
}

export interface ProgramEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

/**
 * Starts `gift-budgets` in a process group of its own.
 *
 * @param env what is set besides PATH, HOME and TMPDIR; nothing else of ours is handed on.
 * @param program the Node and the command line of it, those of this repository unless given.
 */
export function startProgram(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  { node = process.execPath, cli = CLI } = {},
): Program {
  const { PATH, HOME, TMPDIR } = process.env;
  const child = spawn(node, [cli, ...args], {
    env: { PATH, HOME, TMPDIR, ...env },
    detached: true,
    stdio: 'pipe',
  });
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  child.stdin.on('error', () => {});
  // Of its outputs, a process that it leaves behind may hold the other end.
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  return {
    pid: child.pid!,
    stdin: child.stdin,
    get out() {
      return out;
    },
    get err() {
      return err;
    },
    async said(pattern) {
      for (;;) {
        const found = pattern.exec(out) ?? pattern.exec(err);
        if (found) return found;
        const more = new AbortController();
        const { signal } = more;
        const news = await Promise.race([
          once(child.stdout, 'data', { signal }).catch(() => []),
          once(child.stderr, 'data', { signal }).catch(() => []),
          exit.then(() => null),
        ]);
        more.abort();
        if (news === null && !pattern.test(out + err)) {
          throw new Error(`it ended without a word of ${pattern}; it said:\n${out}${err}`);
        }
      }
    },
    kill: (signal) => void child.kill(signal),
    killGroup: (signal) => void process.kill(-child.pid!, signal),
    async ended() {
      const [code, signal] = await exit;
      return { code, signal, out, err };
    },
  };
}

/** Runs it to its end, with nothing on standard input. */
export async function runProgram(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<ProgramEnd> {
  const program = startProgram(args, env);
  program.stdin!.end();
  return await program.ended();
}
