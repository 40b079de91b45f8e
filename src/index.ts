export {
  AFFECTED_PAIRS_MAX,
  GIFT_EVENT_NAMES,
  GIFT_EVENTS_QUEUE,
  type GiftEvent,
  type GiftEventInput,
  GiftEventInvalidError,
  giftEventJsonSchema,
  type GiftEventName,
  giftEventSchema,
  type Id,
  type Pair,
  parseGiftEvent,
} from './events/contract.ts';
export {
  GiftEventClient,
  GiftEventsNotSentError,
  type PairInput,
  type SentEvents,
} from './events/client.ts';
export type { QueueConnection } from './queue.ts';
