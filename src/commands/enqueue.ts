import { Command, InvalidArgumentError } from 'commander';
import { GiftEventClient } from '../events/client.ts';
import {
  GIFT_EVENT_NAMES,
  GiftEventInvalidError,
  type GiftEventInput,
  parseGiftEvent,
} from '../events/contract.ts';
import { mustHaveQueueTables } from './queue-tables.ts';
import { CommandError, type CommandContext } from './context.ts';

interface EnqueueOptions {
  readonly pair?: readonly PairOption[];
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
      'Adds a gift event to the queue, as an upstream service does after a change: the totals of ' +
        'the pairs that it names are recalculated, once "gift-budgets start" runs.',
    )
    .argument('<name>', `what happened: ${GIFT_EVENT_NAMES.join(', ')}`)
    .option(
      '--pair <person:occasion>',
      'the ids of a person and an occasion whose total may have changed; may be repeated',
      addPair,
    )
    .option(
      '--gift <id>',
      'instead of pairs, for gift.assigned and gift.repriced: those it is assigned to now',
    )
    .addHelpText(
      'after',
      `
"gift-budgets show --columns person,person_id,occasion,occasion_id" tells the ids.

Example: gift-budgets enqueue budget.recalculate --pair 1:2 --pair 1:3

Exit codes: 0 added, 1 not added (the message says why).`,
    )
    .action(async (name: string, { pair = [], gift }: EnqueueOptions) => {
      const data = {
        version: 1,
        ...(pair.length > 0 && { affected: pair }),
        ...(gift !== undefined && { giftId: gift }),
      };
      mustBeValid(name, data);
      await context.withStores(async (stores) => {
        await mustHaveQueueTables(stores);
        const client = new GiftEventClient(stores.queue);
        try {
          const { jobs } = await client.sendMany([{ name, data } as GiftEventInput]);
          context.print(`added ${jobs} ${jobs === 1 ? 'job' : 'jobs'}`);
        } finally {
          await client.close();
        }
      });
    });
}

/** Says it before a server is started for it, and how the command line writes the fields. */
function mustBeValid(name: string, data: unknown): void {
  try {
    parseGiftEvent(name, data);
  } catch (error) {
    if (!(error instanceof GiftEventInvalidError)) throw error;
    const isAboutData = error.message.startsWith('data.');
    throw new CommandError(
      `${error.message}${isAboutData ? ' (--pair is data.affected, --gift is data.giftId)' : ''}`,
    );
  }
}

function addPair(text: string, pairs: readonly PairOption[] = []): PairOption[] {
  const [personId, occasionId, more] = text.split(':');
  if (!personId || !occasionId || more !== undefined) {
    throw new InvalidArgumentError('expected PERSON:OCCASION, two ids, such as 1:2');
  }
  return [...pairs, { personId, occasionId }];
}
