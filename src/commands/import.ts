import { SingleBar } from 'cli-progress';
import { Command } from 'commander';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { PassThrough, type Readable } from 'node:stream';
import { GiftEventClient, GiftEventsNotSentError } from '../events/client.ts';
import type { Pair } from '../events/contract.ts';
import { BadLinesError, importGiftList } from '../import/import.ts';
import { GiftListInvalidError } from '../import/lines.ts';
import type { QueueConnection } from '../queue.ts';
import { CommandError, type CommandContext } from './context.ts';

export function importCommand(context: CommandContext): Command {
  return new Command('import')
    .summary('import a gift list from a CSV file, all or nothing')
    .description(
      'Imports assignments from a CSV file with the header person,occasion,gift,amount[,budget],\n' +
        'and sends the gift events. Persons, occasions and gifts are known by their names and made\n' +
        'where they are new. An empty occasion: not yet for any. An empty amount: price unknown.\n' +
        'Importing a file again assigns its gifts again.',
    )
    .argument('<file>', 'the CSV file, or - for standard input')
    .addHelpText(
      'after',
      '\nExit codes: 0 imported, 1 not imported: every bad line is told with its number and reason.',
    )
    .action(async (file: string) => {
      await context.withStores(async ({ database, queue }) => {
        const input = await openInput(file);
        const { imported, pairs } = await importGiftList(database.pool, input).catch(explain);
        context.print(
          `imported ${count(imported.assignments, 'assignment')} of ` +
            `${count(pairs.length, 'budget')} (new: ${count(imported.persons, 'person')}, ` +
            `${count(imported.occasions, 'occasion')}, ${count(imported.gifts, 'gift')}, ` +
            `${count(imported.budgets, 'budget')})`,
        );
        await sendEvents(context, queue, pairs);
      });
    });

  function explain(error: unknown): never {
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
  queue: QueueConnection,
  pairs: readonly Pair[],
): Promise<void> {
  const client = new GiftEventClient(queue);
  try {
    const { jobs } = await client.giftAssigned(pairs);
    context.print(`sent ${count(jobs, 'gift event')}`);
  } catch (error) {
    if (!(error instanceof GiftEventsNotSentError)) throw error;
    context.warn(`warning: ${error.message}; the totals become right all the same, a little later`);
  } finally {
    await client.close();
  }
}

async function openInput(file: string): Promise<Readable> {
  if (file === '-') return process.stdin;
  const { size } = await stat(file).catch((error: NodeJS.ErrnoException) => {
    throw new CommandError(
      `cannot read ${file}: ${error.code === 'ENOENT' ? 'no such file' : error.message}`,
    );
  });
  const stream = createReadStream(file);
  if (!process.stderr.isTTY) return stream;
  const bar = new SingleBar({
    format: 'importing {bar} {percentage} % | {value} of {total} bytes',
  });
  bar.start(size, 0);
  const through = new PassThrough();
  stream.on('data', (chunk) => bar.increment(chunk.length));
  stream.on('close', () => bar.stop());
  return stream.on('error', (error) => through.destroy(error)).pipe(through);
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
