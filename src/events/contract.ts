import { z } from 'zod';

/** The queue that upstream services add gift events to. */
export const GIFT_EVENTS_QUEUE = 'gift-events';

/** The most pairs that one event may name; the recalculation of so many is one transaction. */
export const AFFECTED_PAIRS_MAX = 500;

const ID_MAX = '9223372036854775807';

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
const EXPECTED_STRING = `expected an id above ${Number.MAX_SAFE_INTEGER} as a string, because a number does not hold it exactly`;

/**
 * The bound is part of the pattern, because the pattern is what the JSON Schema shows: what an
 * upstream has checked by that is never refused here.
 */
const ID_PATTERN = new RegExp(`^(?:[1-9][0-9]{0,${ID_MAX.length - 2}}|${sameLengthUpTo(ID_MAX)})$`);

/** Whether it is an id, as a program has it: the contract's ids, and bigints. */
export function isId(id: unknown): boolean {
  if (typeof id === 'number') return Number.isSafeInteger(id) && id > 0;
  return (typeof id === 'string' || typeof id === 'bigint') && ID_PATTERN.test(String(id));
}

const idSchema = z
  .union(
    [
      z.int({ error: EXPECTED_ID, abort: true }).min(1, { error: EXPECTED_ID }),
      z.string().regex(ID_PATTERN, { error: EXPECTED_ID }),
    ],
    {
      error: ({ input }) =>
        typeof input === 'number' && input > Number.MAX_SAFE_INTEGER
          ? EXPECTED_STRING
          : EXPECTED_ID,
    },
  )
  .transform(String)
  .meta({
    id: 'Id',
    description: 'A bigint key; as a string where it does not fit a JSON number exactly.',
  });

const pairSchema = z
  .object(
    { personId: idSchema, occasionId: idSchema },
    { error: 'expected a pair: an object with personId and occasionId' },
  )
  .meta({ id: 'Pair', description: 'The key of a budget.' });

const EXPECTED_AFFECTED = `expected a list of 1 to ${AFFECTED_PAIRS_MAX} pairs`;

const affectedSchema = z
  .array(pairSchema, { error: EXPECTED_AFFECTED })
  .min(1, { error: EXPECTED_AFFECTED })
  .max(AFFECTED_PAIRS_MAX, { error: EXPECTED_AFFECTED })
  .meta({ description: 'The pairs whose total may have changed, the old ones of a move too.' });

const EXPECTED_TIME =
  'expected a time with its offset, as 2026-12-24T18:30:00Z or 2026-12-24T18:30:00+01:00';

const SOURCE_CHARACTERS_MAX = 200;
const EXPECTED_SOURCE = `expected a text of at most ${SOURCE_CHARACTERS_MAX} characters`;

// Optional fields may be null as well: many languages write their empty value so.
const commonFields = {
  version: z.literal(1, { error: 'expected 1' }),
  giftId: idSchema.nullish(),
  occurredAt: z.iso
    .datetime({ offset: true, error: EXPECTED_TIME })
    .nullish()
    .meta({ description: 'When the change was made; for people, never used to order events.' }),
  source: z
    .string({ error: EXPECTED_SOURCE })
    .refine(hasFewCharacters, { error: EXPECTED_SOURCE })
    .meta({
      description: 'The service that sent the event; for people.',
      maxLength: SOURCE_CHARACTERS_MAX,
    })
    .nullish(),
};

const EXPECTED_DATA = { error: 'expected an object' };

const dataNamingPairs = z
  .object({ ...commonFields, affected: affectedSchema }, EXPECTED_DATA)
  .meta({ id: 'DataNamingPairs' });

const dataNamingPairsOrGift = z
  .object({ ...commonFields, affected: affectedSchema.nullish() }, EXPECTED_DATA)
  .refine((data) => data.affected != null || data.giftId != null, {
    error: 'expected at least one of affected and giftId',
    path: ['affected'],
  })
  .meta({ id: 'DataNamingPairsOrGift', anyOf: [hasNotNull('affected'), hasNotNull('giftId')] });

/**
 * The contract of a gift event: the name of the job and its data. Fields that it does not know
 * pass and are dropped, so that an upstream may add its own.
 *
 * `gift.unassigned` and `gift.moved` must name every pair, the old ones too, because the rows no
 * longer tell them; for `gift.assigned` and `gift.repriced` a `giftId` alone stands for the pairs
 * to which that gift is assigned now.
 */
export const giftEventSchema = z.discriminatedUnion(
  'name',
  [
    z.object({ name: z.literal('gift.assigned'), data: dataNamingPairsOrGift }),
    z.object({ name: z.literal('gift.unassigned'), data: dataNamingPairs }),
    z.object({ name: z.literal('gift.repriced'), data: dataNamingPairsOrGift }),
    z.object({ name: z.literal('gift.moved'), data: dataNamingPairs }),
    z.object({ name: z.literal('budget.recalculate'), data: dataNamingPairs }),
  ],
  { error: (): string => `expected one of ${GIFT_EVENT_NAMES.join(', ')}` },
);

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

function describeIssues(event: unknown, issues: readonly z.core.$ZodIssue[]): string {
  const shown = issues
    .slice(0, ISSUES_SHOWN_MAX)
    .map(({ path, message }) => `${showPath(path)}: ${message}, got ${show(valueAt(event, path))}`);
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

const TEXT_SHOWN_MAX = 80;
const FIELDS_SHOWN_MAX = 5;

/**
 * Never the whole of a list or an object: it may be huge, or nested so deep that JSON.stringify
 * overflows the stack, and the job would fail by that instead of by what is wrong with it. Texts
 * go through JSON.stringify, because PostgreSQL cannot store a NUL or half a surrogate pair.
 */
function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') {
    const more = value.length > TEXT_SHOWN_MAX ? '…' : '';
    return `${JSON.stringify(value.slice(0, TEXT_SHOWN_MAX))}${more}`;
  }
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) {
    const fields = Object.keys(value);
    if (fields.length === 0) return '{}';
    const more = fields.length > FIELDS_SHOWN_MAX ? ', …' : '';
    return `an object with ${fields.slice(0, FIELDS_SHOWN_MAX).map(show).join(', ')}${more}`;
  }
  return String(value);
}

/** A pattern for the whole numbers that have as many digits as `max` and are not above it. */
function sameLengthUpTo(max: string): string {
  const smaller = Array.from(max, (digit, at) => {
    const lowest = at === 0 ? 1 : 0;
    if (Number(digit) <= lowest) return [];
    return `${max.slice(0, at)}[${lowest}-${Number(digit) - 1}][0-9]{${max.length - 1 - at}}`;
  });
  return [...smaller.flat(), max].join('|');
}

/** Characters as JSON Schema counts them: one beyond U+FFFF is two units of a JavaScript string. */
function hasFewCharacters(text: string): boolean {
  if (text.length > 2 * SOURCE_CHARACTERS_MAX) return false;
  return Array.from(text).length <= SOURCE_CHARACTERS_MAX;
}

/** Says in JSON Schema that a field is there and not null. */
function hasNotNull(field: string) {
  return { required: [field], properties: { [field]: { not: { type: 'null' as const } } } };
}
