import { Command, InvalidArgumentError } from 'commander';
import { GiftEventClient } from '../events/client.ts';
import { GIFT_EVENT_NAMES, type GiftEventInput, parseGiftEvent } from '../events/contract.ts';
import type { CommandContext } from './context.ts';

interface EnqueueOptions {
  readonly pair: readonly PairOption[];
  readonly gift?: string;
}

interface PairOption {
  readonly personId: string;
  readonly occasionId: string;
}

export function enqueueCommand(context: CommandContext): Command {
  return new Command('enqueue')
    .summary('add a gift event by hand')
    .description(
      'Adds a gift event to the queue: the totals of the named pairs are recalculated.\n' +
        `NAME is one of ${GIFT_EVENT_NAMES.join(', ')}.`,
    )
    .argument('<name>', 'what happened')
    .option('--pair <person:occasion>', 'ids of an affected pair; may be repeated', addPair, [])
    .option('--gift <id>', 'instead of pairs: those to which this gift is assigned now')
    .addHelpText(
      'after',
      '\nExample: gift-budgets enqueue budget.recalculate --pair 1:2 --pair 1:3' +
        '\nExit codes: 0 added, 1 not added (the message says why).',
    )
    .action(async (name: string, { pair, gift }: EnqueueOptions) => {
      const data = {
        version: 1,
        ...(pair.length > 0 && { affected: pair }),
        ...(gift !== undefined && { giftId: gift }),
      };
      parseGiftEvent(name, data);
      await context.withStores(async ({ queue }) => {
        const client = new GiftEventClient(queue);
        try {
          const { jobs } = await client.sendMany([{ name, data } as GiftEventInput]);
          context.print(`added ${jobs} ${jobs === 1 ? 'job' : 'jobs'}`);
        } finally {
          await client.close();
        }
      });
    });
}

function addPair(text: string, pairs: readonly PairOption[]): PairOption[] {
  const [personId, occasionId, more] = text.split(':');
  if (!personId || !occasionId || more !== undefined) {
    throw new InvalidArgumentError('expected PERSON:OCCASION, two ids, such as 1:2');
  }
  return [...pairs, { personId, occasionId }];
}
