import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from './support/budgets.ts';
import { type Program, startProgram } from './support/run-program.ts';

const BOOTING = /Booting/;
const IMPORTED = /Imported \d+ gifts/;
const LIVE = /events +\d+/;
const RESULT = /The upstream made \d+ changes/;

test('the demo ends with every budget right, within 80 columns, and leaves nothing behind', async () => {
  await withDemo(async (demo) => {
    const { code, out, err } = await demo.ended();
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/\n\n\d+ budgets checked, 0 wrong\n$/);
    expect(Number(/made (\d+) changes/.exec(out)![1])).toBeGreaterThan(0);
    expect(out.split('\n').filter((line) => line.length > 80)).toEqual([]);
  });
});

test('the demo needs no environment, and does not touch the one that there is', async () => {
  const env = { DATABASE_URL: 'postgres://127.0.0.1:1/none', REDIS_URL: 'redis://127.0.0.1:1' };
  await withDemo(async (demo) => expect(await demo.ended()).toMatchObject({ code: 0 }), env);
});

test.concurrent.each([
  ['at once', /^/],
  ['while it boots', BOOTING],
  ['after the import', IMPORTED],
  ['while the upstream is at work', LIVE],
  ['near its end', RESULT],
])('Ctrl-C %s ends it, and leaves nothing behind', async (_, moment) => {
  await withDemo(async (demo) => {
    await demo.said(moment);
    demo.killGroup('SIGINT');
    const { code, signal, err } = await demo.ended();
    expect(err).toBe('');
    // A shell shows a death by SIGINT as 130, too.
    expect(signal === 'SIGINT' ? 130 : code).toBeOneOf(moment === RESULT ? [0, 130] : [130]);
  });
});

test.concurrent.each([
  ['at once', /^/],
  ['while it boots', BOOTING],
  ['while the upstream is at work', LIVE],
])('SIGKILL %s leaves nothing behind', async (_, moment) => {
  await withDemo(async (demo) => {
    await demo.said(moment);
    demo.kill('SIGKILL');
    expect(await demo.ended()).toMatchObject({ signal: 'SIGKILL' });
  });
});

/** Runs the demo with a TMPDIR that is known to nobody else, and looks for what it leaves. */
async function withDemo(
  work: (demo: Program) => Promise<unknown>,
  env: NodeJS.ProcessEnv = {},
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'demo-'));
  await chmod(directory, 0o755);
  const demo = startProgram(['demo', '--seconds', '1'], { ...env, TMPDIR: directory });
  try {
    await work(demo);
    await eventually(
      async () => [...(await processesOf(directory)), ...(await readdir(directory))],
      (left) => left.length === 0,
    );
  } finally {
    demo.kill('SIGKILL');
    await rm(directory, { recursive: true });
  }
}

/** The processes that were given this TMPDIR: the demo, its upstream, the keeper, PostgreSQL. */
async function processesOf(directory: string): Promise<string[]> {
  if (!existsSync('/proc/self/environ')) return [];
  const found = await Promise.all(
    (await readdir('/proc')).filter(isPid).map(async (pid) => {
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      const isOurs = environment.includes(directory) || command.includes(directory);
      return isOurs ? [`${pid}: ${command.replaceAll('\0', ' ')}`] : [];
    }),
  );
  return found.flat();
}

function isPid(name: string): boolean {
  return /^\d+$/.test(name);
}
