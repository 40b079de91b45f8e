import { z } from 'zod';

/** The queue that upstream services add gift events to. */
export const GIFT_EVENTS_QUEUE = 'gift-events';

/** The most pairs that one event may name; the recalculation of so many is one transaction. */
export const AFFECTED_PAIRS_MAX = 500;

const ID_MAX = 2n ** 63n - 1n;

/**
 * The id of a row: a decimal string from '1' to '9223372036854775807' (PostgreSQL bigint).
 * A string, because a JavaScript number holds only the first 2^53 of them exactly.
 */
export type Id = string;

/** The key of a budget. */
export interface Pair {
  readonly personId: Id;
  readonly occasionId: Id;
}

const EXPECTED_ID = `expected an id: a whole number from 1 to ${ID_MAX}, as a number or a string`;

const idSchema = z
  .union(
    [
      z.int({ error: EXPECTED_ID }).min(1, { error: EXPECTED_ID }),
      z.string().regex(/^[1-9][0-9]{0,18}$/, { error: EXPECTED_ID }),
    ],
    { error: EXPECTED_ID },
  )
  .refine((id) => BigInt(id) <= ID_MAX, { error: EXPECTED_ID })
  .transform(String)
  .meta({ description: 'A bigint key; as a string where it does not fit a JSON number exactly.' });

const pairSchema = z.object(
  { personId: idSchema, occasionId: idSchema },
  { error: 'expected a pair: an object with personId and occasionId' },
);

const EXPECTED_AFFECTED = `expected a list of 1 to ${AFFECTED_PAIRS_MAX} pairs`;

const affectedSchema = z
  .array(pairSchema, { error: EXPECTED_AFFECTED })
  .min(1, { error: EXPECTED_AFFECTED })
  .max(AFFECTED_PAIRS_MAX, { error: EXPECTED_AFFECTED })
  .meta({ description: 'The pairs whose total may have changed, the old ones of a move too.' });

// Optional fields may be null as well: many languages write their empty value so.
const commonFields = {
  version: z.literal(1),
  giftId: idSchema.nullish(),
  occurredAt: z.iso
    .datetime({ offset: true, error: 'expected an ISO 8601 time with its offset' })
    .nullish()
    .meta({ description: 'When the change was made; for people, never used to order events.' }),
  source: z
    .string()
    .max(200)
    .nullish()
    .meta({ description: 'The service that sent the event; for people.' }),
};

const dataNamingPairs = z.object({ ...commonFields, affected: affectedSchema });

const dataNamingPairsOrGift = z
  .object({ ...commonFields, affected: affectedSchema.nullish() })
  .refine((data) => data.affected != null || data.giftId != null, {
    error: 'expected at least one of affected and giftId',
    path: ['affected'],
  })
  .meta({ anyOf: [{ required: ['affected'] }, { required: ['giftId'] }] });

/**
 * The contract of a gift event: the name of the job and its data. Fields that it does not know
 * pass and are dropped, so that an upstream may add its own.
 *
 * `gift.unassigned` and `gift.moved` must name every pair, the old ones too, because the rows no
 * longer tell them; for `gift.assigned` and `gift.repriced` a `giftId` alone stands for the pairs
 * to which that gift is assigned now.
 */
export const giftEventSchema = z.discriminatedUnion('name', [
  z.object({ name: z.literal('gift.assigned'), data: dataNamingPairsOrGift }),
  z.object({ name: z.literal('gift.unassigned'), data: dataNamingPairs }),
  z.object({ name: z.literal('gift.repriced'), data: dataNamingPairsOrGift }),
  z.object({ name: z.literal('gift.moved'), data: dataNamingPairs }),
  z.object({ name: z.literal('budget.recalculate'), data: dataNamingPairs }),
]);

/** A gift event as an upstream writes it: ids as numbers or strings. */
export type GiftEventInput = z.input<typeof giftEventSchema>;

/** A gift event as it was understood: ids as strings. */
export type GiftEvent = z.output<typeof giftEventSchema>;

export type GiftEventName = GiftEvent['name'];

export const GIFT_EVENT_NAMES: readonly GiftEventName[] = giftEventSchema.options.map(
  (option) => option.shape.name.value,
);

/** The contract as JSON Schema (draft 2020-12), for upstreams in any language. */
export function giftEventJsonSchema(): Record<string, unknown> {
  return z.toJSONSchema(giftEventSchema, { io: 'input' });
}

/** A gift event that can never be served, however often it is tried. */
export class GiftEventInvalidError extends Error {
  readonly code = 'GIFT_EVENT_INVALID';
  override readonly name = 'GiftEventInvalidError';
}

/**
 * Understands one gift event.
 *
 * @throws {GiftEventInvalidError} that names each wrong field, its value and what was expected.
 */
export function parseGiftEvent(name: unknown, data: unknown): GiftEvent {
  const event = { name, data };
  const result = giftEventSchema.safeParse(event);
  if (result.success) return result.data;
  throw new GiftEventInvalidError(describeIssues(event, result.error.issues));
}

const ISSUES_SHOWN_MAX = 3;

function describeIssues(event: { name: unknown }, issues: readonly z.core.$ZodIssue[]): string {
  if (issues[0]?.code === 'invalid_union' && issues[0].path[0] === 'name') {
    return `name: unknown event ${show(event.name)}; expected one of ${GIFT_EVENT_NAMES.join(', ')}`;
  }
  const shown = issues.slice(0, ISSUES_SHOWN_MAX).map((issue) => {
    const message = issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '');
    return `${showPath(issue.path)}: ${message}, got ${show(valueAt(event, issue.path))}`;
  });
  const more = issues.length - shown.length;
  return `${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

function showPath(path: readonly PropertyKey[]): string {
  return path
    .map((key, index) =>
      typeof key === 'number' ? `[${key}]` : index === 0 ? String(key) : `.${String(key)}`,
    )
    .join('');
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) =>
      typeof inner === 'object' && inner !== null
        ? (inner as Record<PropertyKey, unknown>)[key]
        : undefined,
    value,
  );
}

const VALUE_SHOWN_MAX = 80;

function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > VALUE_SHOWN_MAX ? `${text.slice(0, VALUE_SHOWN_MAX)}…` : text;
}
