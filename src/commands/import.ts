import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import { open } from 'node:fs/promises';
import { addAbortSignal, PassThrough, pipeline, type Readable } from 'node:stream';
import { GiftEventClient, GiftEventsNotSentError } from '../events/client.ts';
import type { Pair } from '../events/contract.ts';
import { BadLinesError, importGiftList } from '../import/import.ts';
import { GiftListInvalidError } from '../import/lines.ts';
import type { Stores } from '../stores.ts';
import { mustHaveQueueTables } from './queue-tables.ts';
import { CommandError, type CommandContext } from './context.ts';

export function importCommand(context: CommandContext): Command {
  return new Command('import')
    .summary('import a gift list from a CSV file, all or nothing')
    .description(
      'Assigns the gifts of a CSV file, and sends the gift events: all of them, or none if a line ' +
        'is bad. Importing a file again assigns its gifts again.',
    )
    .argument('<file>', 'the CSV file, or - for standard input')
    .addHelpText(
      'after',
      `
The first line is the header: person,occasion,gift,amount and, where you like, budget.
  person, occasion, gift  known by their names, and made where they are new;
                          an empty occasion: not yet for any, so it counts nowhere
  amount                  such as 12.50; empty: price unknown, negative: a refund
  budget                  sets what is planned for the person and occasion; empty: as it is

Example:
  person,occasion,gift,amount,budget
  Mom,Christmas,"Chocolates, dark",14.50,100.00
  Mom,Christmas,Peonies,38.00,

Exit codes: 0 imported, 1 not imported (every bad line is told with its number and reason),
130 interrupted before anything was stored.`,
    )
    .action(async (file: string) => {
      const input = await openInput(file);
      addAbortSignal(context.interrupted, input);
      await context.withStores(async (stores) => {
        const done = await importGiftList(stores.database.pool, input).catch(explain);
        if (done === null) return;
        const { imported, pairs } = done;
        context.print(
          `imported ${count(imported.assignments, 'assignment')} of ` +
            `${count(pairs.length, 'budget')} (new: ${count(imported.persons, 'person')}, ` +
            `${count(imported.occasions, 'occasion')}, ${count(imported.gifts, 'gift')}, ` +
            `${count(imported.budgets, 'budget')})`,
        );
        if (pairs.length > 0) await sendEvents(context, stores, pairs);
      });
    });

  function explain(error: unknown): null {
    if (context.interrupted.aborted) {
      context.warn('interrupted: nothing was imported');
      context.setExitCode(130);
      return null;
    }
    if (error instanceof GiftListInvalidError) throw new CommandError(error.message);
    if (!(error instanceof BadLinesError)) throw error;
    for (const { line, reason } of error.shown) context.warn(`line ${line}: ${reason}`);
    const more = error.count - error.shown.length;
    if (more > 0) context.warn(`… and ${more} more`);
    throw new CommandError(error.message);
  }
}

/** The events make it fast; without them the marks that the import left do it. */
async function sendEvents(
  context: CommandContext,
  stores: Stores,
  pairs: readonly Pair[],
): Promise<void> {
  const client = new GiftEventClient(stores.queue);
  try {
    await mustHaveQueueTables(stores);
    const { jobs } = await client.giftAssigned(pairs);
    context.print(`sent ${count(jobs, 'gift event')}`);
  } catch (error) {
    if (!isOfQueue(error)) throw error;
    context.warn(
      `warning: no gift events were sent: ${error.message}\n` +
        'The import itself is done, and "gift-budgets start" makes the totals right all the same.',
    );
  } finally {
    await client.close();
  }
}

/** An importer need not have any right on the queue. */
function isOfQueue(error: unknown): error is Error {
  const isRefused = (error as { code?: string }).code === '42501';
  return error instanceof GiftEventsNotSentError || error instanceof CommandError || isRefused;
}

/** Opens it before anything else is started: a mistyped name is told at once. */
async function openInput(path: string): Promise<Readable> {
  if (path === '-') return process.stdin;
  try {
    const file = await open(path);
    const found = await file.stat();
    if (found.isDirectory()) {
      await file.close();
      throw new Error('it is a directory');
    }
    const stream = file.createReadStream();
    return process.stderr.isTTY ? withProgress(stream, found.size) : stream;
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    throw new CommandError(`cannot read ${path}: ${REASONS[code] ?? message}`);
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'permission denied',
};

function withProgress(stream: Readable, size: number): Readable {
  const bar = new SingleBar({
    format: 'importing {bar} {percentage} % | {value} of {total} bytes',
  });
  bar.start(size, 0);
  const through = new PassThrough();
  stream.on('data', (chunk: Buffer) => bar.increment(chunk.length));
  through.on('close', () => bar.stop());
  pipeline(stream, through, () => {}); // Its error is that of `through`, too.
  return through;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
