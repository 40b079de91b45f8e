import {
  GIFT_EVENT_NAMES,
  GIFT_EVENTS_QUEUE,
  giftEventJsonSchema,
  type GiftEventName,
} from '../src/events/contract.ts';

/** The version of the contract, apart from the package's: events.md says what may change in which. */
const CONTRACT_VERSION = '1.0.0';

type Json = Record<string, unknown>;

/** What the schema cannot say of an event, for people. */
const SUMMARIES: Readonly<Record<GiftEventName, string>> = {
  'gift.assigned':
    'A gift was assigned. A giftId alone stands for the pairs to which it is assigned now.',
  'gift.repriced':
    'The price of a gift changed. A giftId alone stands for the pairs to which it is assigned now.',
  'gift.unassigned': 'A gift was taken away: every pair that it was taken from is named.',
  'gift.moved': 'A gift was moved: every pair is named, the old ones too.',
  'budget.recalculate': 'Nothing is known to have changed; these totals are to be summed again.',
};

const TAKES_GIFT: ReadonlySet<GiftEventName> = new Set(['gift.assigned', 'gift.repriced']);

/** The contract as an AsyncAPI 3 document: the queue, its messages, and the schemas of their data. */
export function giftEventAsyncApi(): Json {
  const { schemas, dataOf } = readSchema();
  const messages = GIFT_EVENT_NAMES.map((name) => [name, message(name, dataOf(name))] as const);
  const refs = GIFT_EVENT_NAMES.map((name) => [name, ref('components/messages', name)] as const);
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Gift events',
      version: CONTRACT_VERSION,
      description:
        'Jobs on a BullMQ queue: the name of a message is the name of the job, its payload the data ' +
        'of the job. Sent after the commit of the change; an event that is not sent costs freshness, ' +
        'never correctness.',
      license: { name: 'MIT' },
    },
    defaultContentType: 'application/json',
    channels: {
      giftEvents: {
        address: GIFT_EVENTS_QUEUE,
        description: 'A BullMQ queue, with the key prefix "bull" on Redis.',
        messages: Object.fromEntries(refs),
      },
    },
    operations: {
      recalculateBudgets: {
        action: 'receive',
        summary: 'The stored total of every named pair is summed again.',
        channel: ref('channels', 'giftEvents'),
        messages: GIFT_EVENT_NAMES.map((name) => ref('channels/giftEvents/messages', name)),
      },
    },
    components: { messages: Object.fromEntries(messages), schemas },
  };
}

function message(name: GiftEventName, payload: Json): Json {
  const pairs = [
    { personId: 1, occasionId: 1 },
    { personId: '9223372036854775807', occasionId: 1 },
  ];
  const examples = [{ name: 'pairs', payload: { version: 1, affected: pairs } }];
  const byGift = { name: 'gift', payload: { version: 1, giftId: 7, source: 'gift lists' } };
  const all = TAKES_GIFT.has(name) ? [...examples, byGift] : examples;
  return { name, summary: SUMMARIES[name], payload, examples: all };
}

/** The one schema in the parts that the document has: the shared ones, and the data of each event. */
function readSchema(): { schemas: unknown; dataOf: (name: GiftEventName) => Json } {
  const text = JSON.stringify(giftEventJsonSchema()).replaceAll(
    '#/$defs/',
    '#/components/schemas/',
  );
  const { $defs, oneOf } = JSON.parse(text) as { $defs: Json; oneOf: readonly EventSchema[] };
  const dataOf = (name: GiftEventName): Json =>
    oneOf.find(({ properties }) => properties.name.const === name)!.properties.data;
  return { schemas: $defs, dataOf };
}

interface EventSchema {
  readonly properties: { readonly name: { readonly const: string }; readonly data: Json };
}

function ref(where: string, name: string): Json {
  return { $ref: `#/${where}/${name}` };
}
