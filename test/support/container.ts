import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';

export interface ContainerOptions {
  /** The folder that is its root. */
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string;
  /** uid:gid */
  readonly user: string;
  /** Whether its root may be written to; else it is mounted read-only. */
  readonly isWritable?: boolean;
  readonly command: readonly string[];
}

export interface Container {
  readonly out: string;
  readonly err: string;
  /** Signals its process 1 from outside, as `docker kill` does. */
  kill(signal: NodeJS.Signals): void;
  /** What /proc/<pid>/status says of its process 1. */
  status(name: string): string[];
  ended(): Promise<{ code: number | null; out: string; err: string }>;
}

export const BASE_PATH = '/base:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** What a root needs to have for the programs of this machine. */
export const MOUNT_POINTS = ['base', 'dev', 'etc', 'proc', 'root/.npm', 'tmp', 'usr'];

/** Takes the root, Node's folder, and npm's cache where the root may be written to; then a command. */
const ENTER = `set -e
cd "$1"
mount --bind . .
cd "$1"
for machine in /usr /etc; do
  mount --bind "$machine" ".$machine"
  mount -o remount,bind,ro ".$machine"
done
mount --rbind /dev dev
mount --bind "$2" base
mount -t proc proc proc
mount -t tmpfs tmpfs tmp
if [ "$3" ]; then mount --bind "$3" root/.npm; else mount -o remount,bind,ro .; fi
shift 3
exec "$@"`;

/**
 * Starts a command as process 1 of namespaces of its own, with a folder as its root and nothing of
 * our environment: what `docker run` does, with unshare and chroot. Only root may; see
 * `canContain`. The network is the machine's.
 */
export function startContainer(options: ContainerOptions): Container {
  const { root, env, workdir, user, command } = options;
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const cache = options.isWritable === true ? npmCache() : '';
  const enter = [ENTER, 'sh', root, dirname(process.execPath), cache];
  const inside = ['chroot', `--userspec=${user}`, '--groups=', '.', '/usr/bin/env', '-i'];
  const child = spawn(
    'unshare',
    [...UNSHARE, 'sh', '-c', ...enter, ...inside, '-C', workdir, ...variables, ...command],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const closed = once(child, 'close') as Promise<[number | null]>;
  const first = (): string =>
    readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
  return {
    get out() {
      return out;
    },
    get err() {
      return err;
    },
    kill: (signal) => void process.kill(Number(first()), signal),
    status: (name) =>
      readFileSync(`/proc/${first()}/status`, 'utf8')
        .split('\n')
        .find((line) => line.startsWith(`${name}:`))!
        .split(/\s+/)
        .slice(1),
    async ended() {
      const [code] = await closed;
      return { code, out, err };
    },
  };
}

const UNSHARE = ['--mount', '--pid', '--fork', '--kill-child'];

/** Whether this machine lets us; containers in containers often may not. */
export function canContain(): boolean {
  try {
    execFileSync('unshare', [...UNSHARE, 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], {
      stdio: 'ignore',
    });
    return process.getuid?.() === 0;
  } catch {
    return false;
  }
}

function npmCache(): string {
  return execFileSync('npm', ['config', 'get', 'cache'], { encoding: 'utf8' }).trim();
}
