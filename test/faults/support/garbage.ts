import fc from 'fast-check';

/** A gift event that is wrong in one place. */
export interface MalformedEvent {
  readonly name: string;
  readonly data: unknown;
  /** What the reason of its failure must say: the field, and its value. */
  readonly says: readonly [field: string, value: string];
}

/** A job as nobody may write it. */
export interface RawGarbage {
  readonly id: string;
  /** The fields that are not as those of a good job; null for a key that holds no hash. */
  readonly fields: Readonly<Record<string, string>> | null;
}

/**
 * Gift events that are JSON, each wrong in one place.
 *
 * @param anyText whether the store takes every text; PostgreSQL refuses a NUL.
 */
export function malformedEvents(seed: number, count: number, anyText: boolean): MalformedEvent[] {
  const text = anyText ? fc.string({ unit: 'binary' }) : fc.string();
  return fc.sample(malformedEvent(text), { seed, numRuns: count });
}

/** Jobs with fields that BullMQ cannot read. */
export function rawGarbage(seed: number, count: number): RawGarbage[] {
  const jobs = fc.sample(garbageFields, { seed, numRuns: count });
  return jobs.map((fields, at) => ({ id: `garbage-${at}`, fields }));
}

const NAMES = ['gift.assigned', 'gift.unassigned', 'gift.repriced', 'gift.moved'];

function malformedEvent(text: fc.Arbitrary<string>): fc.Arbitrary<MalformedEvent> {
  const name = fc.constantFrom(...NAMES);
  const json = fc.oneof(
    fc.constantFrom(null, true, false),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    text,
    fc.array(fc.integer(), { maxLength: 600 }),
    fc.dictionary(fc.string({ minLength: 1 }), fc.integer()),
  );
  const only = (isWrong: (value: unknown) => boolean): fc.Arbitrary<unknown> =>
    json.filter((value) => isWrong(value));
  const isObject = (value: unknown): boolean =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const isText = (value: unknown): value is string => typeof value === 'string';
  const isPresent = (value: unknown): boolean => value !== null;
  const isId = (value: unknown): boolean =>
    (Number.isSafeInteger(value) && Number(value) > 0) || (isText(value) && /^[1-9]/.test(value));

  /** A good event's data but for one field. */
  const field = (
    path: string,
    value: fc.Arbitrary<unknown>,
    put: (wrong: unknown) => object,
  ): fc.Arbitrary<MalformedEvent> =>
    fc.tuple(name, value).map(([eventName, wrong]) => ({
      name: eventName,
      data: { version: 1, affected: [{ personId: 1, occasionId: 1 }], ...put(wrong) },
      says: [`${path}: expected`, `got ${shown(wrong)}`],
    }));
  return fc.oneof(
    text.map((wrong) => ({
      name: `x${wrong}`,
      data: { version: 1, affected: [{ personId: 1, occasionId: 1 }] },
      says: ['name: expected one of', `got ${shown(`x${wrong}`)}`] as const,
    })),
    // PostgreSQL's queue stores {} for null.
    fc
      .tuple(
        name,
        only((value) => !isObject(value) && isPresent(value)),
      )
      .map(([eventName, data]): MalformedEvent => ({
        name: eventName,
        data,
        says: ['data: expected an object', `got ${shown(data)}`],
      })),
    field(
      'data.version',
      only((value) => value !== 1),
      (version) => ({ version }),
    ),
    field(
      'data.affected',
      only((value) => isPresent(value) && !Array.isArray(value)),
      (affected) => ({ affected }),
    ),
    field(
      'data.affected[0]',
      only((value) => !isObject(value)),
      (pair) => ({ affected: [pair] }),
    ),
    field(
      'data.affected[1].personId',
      only((value) => !isId(value)),
      (personId) => ({
        affected: [
          { personId: 1, occasionId: 1 },
          { personId, occasionId: 1 },
        ],
      }),
    ),
    field(
      'data.affected[0].occasionId',
      only((value) => !isId(value)),
      (occasionId) => ({
        affected: [{ personId: '7', occasionId }],
      }),
    ),
    field(
      'data.giftId',
      only((value) => isPresent(value) && !isId(value)),
      (giftId) => ({ giftId }),
    ),
    field(
      'data.occurredAt',
      only((value) => isPresent(value) && !(isText(value) && /^[0-9]{4}-/.test(value))),
      (occurredAt) => ({ occurredAt }),
    ),
    field(
      'data.source',
      only((value) => isPresent(value) && !isText(value)),
      (source) => ({ source }),
    ),
  );
}

/** The beginning of how a reason shows a value; the whole of it, where it is no list or object. */
function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 80));
  if (Array.isArray(value)) return value.length === 0 ? '[]' : `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) {
    return Object.keys(value).length === 0 ? '{}' : 'an object with';
  }
  // As JSON, in which there is no -0.
  return String(JSON.parse(JSON.stringify(value)));
}

const brokenJson = fc
  .string({ unit: 'binary', maxLength: 200 })
  .map((text) => `{${text}`)
  .filter((text) => !isJson(text));
const noCount = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 20 })
  .map((text) => `${text}?`);

const garbageFields = fc.oneof(
  { arbitrary: fc.record({ data: brokenJson }), weight: 3 },
  { arbitrary: fc.record({ opts: fc.oneof(brokenJson, fc.constant('null')) }), weight: 3 },
  fc.record({ progress: brokenJson }),
  fc.record({ parent: fc.oneof(brokenJson, fc.constantFrom('', '7', 'null', '{}', '[]')) }),
  fc.record({ parentKey: fc.string({ minLength: 1 }).map((text) => text.replaceAll(':', '.')) }),
  { arbitrary: fc.record({ ats: noCount }), weight: 2 },
  fc.record({ atm: noCount }),
  fc.record({ stc: noCount }),
  fc.record({ data: brokenJson, opts: brokenJson, progress: brokenJson, ats: noCount }),
  fc.constant(null),
);

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
