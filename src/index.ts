export type { Budget, BudgetToldPending, BudgetWithPending } from './budgets/budget.ts';
export type { Lag } from './budgets/lag.ts';
export type { Money } from './budgets/money.ts';
export { BudgetQueryError, type IdInput, type Page, type PageRequest } from './budgets/page.ts';
export {
  type BudgetKey,
  BudgetReader,
  type ReadOptions,
  type WaitOptions,
} from './budgets/reader.ts';
export { BudgetFailedError, BudgetNotFreshError } from './budgets/wait-until-fresh.ts';
export {
  GiftEventBuffer,
  type GiftEventBufferOptions,
  type GiftEventCounts,
} from './events/buffer.ts';
export type { ChangedPairs } from './events/changed-pairs.ts';
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
  type ChangedPair,
  GiftEventClient,
  GiftEventsNotSentError,
  type PairInput,
  type SentEvents,
} from './events/client.ts';
export { GiftEventSubscriber } from './events/mikro-orm-subscriber.ts';
export type { Queryable } from './queryable.ts';
export type { QueueConnection } from './queue.ts';
