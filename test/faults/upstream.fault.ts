import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import type { Pair } from '../../src/events/contract.ts';
import { openGiftEventsQueue } from '../../src/queue.ts';
import { countMarks, eventually, spent } from '../support/budgets.ts';
import { expectAtRest } from './support/at-rest.ts';
import { startWriters, type Writers } from './support/load.ts';
import {
  clientSender,
  describeQueues,
  openScene,
  type Scene,
  startWorkerProcess,
} from './support/scene.ts';
import type { UpstreamOrder } from './support/upstream.ts';

const UPSTREAM = fileURLToPath(new URL('support/upstream.ts', import.meta.url));
const UPSTREAMS = 5;
const AMOUNT = '7.77';
const MARK_MS_MAX = 10_000;

describeQueues('an upstream', (backend) => {
  it('that is killed between its commit and its event has a right total all the same', async () => {
    const { scene, ours, writers } = await openBusyScene();
    let slowestMs = 0;
    for (const pair of ours) {
      const upstream = startUpstream(scene, pair, ['commit', 'send']);
      expect(await upstream.said()).toBe('commit done');
      const committedAt = performance.now();
      upstream.kill();
      await total(scene, pair, AMOUNT, MARK_MS_MAX);
      slowestMs = Math.max(slowestMs, performance.now() - committedAt);
    }
    const note = `${UPSTREAMS} upstreams killed, their totals right after ${slowestMs.toFixed(0)} ms at most`;
    await settles(scene, writers, 'upstream killed before its event', note);
  }, 300_000);

  it('that sends before its commit has a right total after it', async () => {
    const { scene, ours, writers } = await openBusyScene();
    for (const pair of ours) {
      const upstream = startUpstream(scene, pair, ['send', 'commit']);
      const [, jobId] = (await upstream.said()).split(' ');
      await completed(scene, jobId!);
      expect(await spent(scene.database.pool, pair), 'served too early').toBe('0.00');
      upstream.goOn();
      expect(await upstream.said()).toBe('commit done');
      await total(scene, pair, AMOUNT, MARK_MS_MAX);
    }
    await settles(scene, writers, 'event before the commit');
  }, 300_000);

  it('that sends and rolls back changes nothing', async () => {
    const { scene, ours, writers } = await openBusyScene();
    for (const pair of ours) {
      const upstream = startUpstream(scene, pair, ['send', 'rollback']);
      const [, jobId] = (await upstream.said()).split(' ');
      await completed(scene, jobId!);
      upstream.goOn();
      expect(await upstream.said()).toBe('rollback done');
    }
    await settles(scene, writers, 'event and rollback');
    for (const pair of ours) expect(await spent(scene.database.pool, pair)).toBe('0.00');
    expect(await countMarks(scene.database.pool)).toBe(0);
  }, 300_000);

  async function openBusyScene() {
    const scene = await openScene(backend);
    const ours = scene.pairs.slice(0, UPSTREAMS);
    await startWorkerProcess(scene.database, scene.queue);
    const others = scene.pairs.slice(UPSTREAMS);
    const writers = startWriters(scene.database, others, { send: clientSender(scene.queue) });
    return { scene, ours, writers };
  }
});

function startUpstream({ database, queue }: Scene, pair: Pair, steps: UpstreamOrder['steps']) {
  const order: UpstreamOrder = { url: database.url, queue, pair, amount: AMOUNT, steps };
  const child: ChildProcess = spawn(process.execPath, [UPSTREAM, JSON.stringify(order)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(async () => {
    const exited = child.exitCode ?? child.signalCode ?? once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  const lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
  return {
    /** The next step it has done. */
    said: async () => ((await lines.next()) as IteratorResult<string, string>).value,
    goOn: () => void child.stdin!.write('go on\n'),
    kill: () => void child.kill('SIGKILL'),
  };
}

async function completed({ queue }: Scene, jobId: string): Promise<void> {
  const open = openGiftEventsQueue(queue, () => {});
  await open.connected();
  await eventually(
    async () => await open.queue.getJobState(jobId),
    // Of the completed ones the queue keeps only the last.
    (state) => state === 'completed' || state === 'unknown',
  );
  await open.close();
}

async function total(scene: Scene, pair: Pair, amount: string, timeoutMs: number): Promise<void> {
  await eventually(
    () => spent(scene.database.pool, pair),
    (stored) => stored === amount,
    timeoutMs,
  );
}

async function settles(
  { database, queue }: Scene,
  writers: Writers,
  name: string,
  note?: string,
): Promise<void> {
  const written = await writers.stop();
  await expectAtRest(database.pool, queue, { name, written, ...(note && { note }) });
}
