import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  GIFT_EVENT_NAMES,
  GiftEventInvalidError,
  giftEventJsonSchema,
  isId,
  parseGiftEvent,
} from '../src/events/contract.ts';

const seed = Number(process.env.PROPERTY_SEED ?? Date.now() % 1_000_000_000);

const pair = { personId: 1, occasionId: 2 };

// The pattern beside `format` says it all; formats are annotations in this draft.
const isValid = new Ajv2020({ formats: { 'date-time': true } }).compile(giftEventJsonSchema());

describe(`any JSON (PROPERTY_SEED=${seed})`, () => {
  it('is understood or refused with GiftEventInvalidError, nothing else', () => {
    const json = fc.oneof(anyData(), fc.jsonValue());
    const name = fc.oneof(fc.constantFrom<unknown>(...GIFT_EVENT_NAMES), fc.jsonValue());
    fc.assert(
      fc.property(name, json, (name, data) => void understands(name, data)),
      { seed, numRuns: 1_000 },
    );
  });

  it('is valid by the JSON Schema exactly if it is understood', () => {
    const seen = { understood: 0, refused: 0 };
    const name = fc.constantFrom<string>(...GIFT_EVENT_NAMES, 'gift.bought');
    fc.assert(
      fc.property(name, anyData(), (name, data) => {
        const isUnderstood = understands(name, data);
        seen[isUnderstood ? 'understood' : 'refused'] += 1;
        expect(isValid({ name, data })).toBe(isUnderstood);
      }),
      { seed, numRuns: 2_000 },
    );
    // Both must come often enough for the comparison to mean something.
    expect(Math.min(seen.understood, seen.refused)).toBeGreaterThan(100);
  });

  it('is an id, as the client asks for, exactly if it is understood as one', () => {
    const edge = fc.bigInt({ min: 2n ** 63n - 3n, max: 2n ** 63n + 3n }).map(String);
    const digits = fc.stringMatching(/^[0-9]{1,20}$/);
    const number = fc.oneof(fc.integer(), fc.double(), fc.maxSafeInteger());
    const id = fc.oneof(number, digits, edge, fc.string(), fc.jsonValue());
    fc.assert(
      fc.property(id, (value) => {
        const data = { version: 1, affected: [{ personId: value, occasionId: 1 }] };
        expect(isId(value)).toBe(understands('gift.assigned', data));
      }),
      { seed, numRuns: 2_000 },
    );
    for (const value of [2 ** 53 - 1, 2 ** 53, 0, -0, '1\n', 1n, 2n ** 63n - 1n, 2n ** 63n, -1n]) {
      const text = typeof value === 'bigint' ? String(value) : value;
      const data = { version: 1, affected: [{ personId: text, occasionId: 1 }] };
      expect(isId(value)).toBe(understands('gift.assigned', data));
    }
  });

  it.each([
    { version: 1, affected: null, giftId: null },
    { version: 1, affected: null, giftId: 7 },
    { version: 1, affected: [{ ...pair, personId: '9223372036854775807' }] },
    { version: 1, affected: [{ ...pair, personId: '9223372036854775808' }] },
    { version: 1, affected: [pair], source: '🎁'.repeat(200) },
    { version: 1, affected: [pair], source: '🎁'.repeat(201) },
    { version: 1, affected: [pair], source: '\uD83C'.repeat(201) },
    { version: 1, affected: Array(500).fill(pair) },
    { version: 1, affected: Array(501).fill(pair) },
  ])('at the edges the JSON Schema and the parser agree (%#)', (data) => {
    for (const name of GIFT_EVENT_NAMES)
      expect(isValid({ name, data })).toBe(understands(name, data));
  });
});

function understands(name: unknown, data: unknown): boolean {
  try {
    parseGiftEvent(name, data);
    return true;
  } catch (error) {
    if (error instanceof GiftEventInvalidError) return false;
    throw error;
  }
}

/** Data as JSON carries it: mostly nearly right, so that each rule decides often. */
function anyData(): fc.Arbitrary<unknown> {
  const mostly = <T>(right: fc.Arbitrary<T>, wrong: fc.Arbitrary<unknown> = fc.jsonValue()) =>
    fc.oneof({ weight: 30, arbitrary: right }, { weight: 1, arbitrary: wrong });
  const id = mostly(
    fc.oneof(fc.integer({ min: 1 }), fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }).map(String)),
    fc.oneof(
      fc.jsonValue(),
      fc.double(),
      fc.stringMatching(/^[0-9]{1,20}$/),
      fc.bigInt({ min: 2n ** 63n - 3n, max: 2n ** 63n + 3n }).map(String),
    ),
  );
  const time = fc.stringMatching(
    /^(?:19|20)\d\d-[01]\d-[0-3]\d[Tt ][0-2]\d:[0-6]\d(?::[0-6]\d)?(?:\.\d{1,9})?(?:Z|z|[+-][0-2]\d:?[0-6]\d)?$/,
  );
  const rightTime = fc.date({ noInvalidDate: true, max: new Date('9999-01-01') });
  const longText = fc
    .tuple(fc.constantFrom('x', 'é', '🎁', '\uD83C'), fc.integer({ min: 195, max: 205 }))
    .map(([character, times]) => character.repeat(times));
  const data = fc.record(
    {
      version: mostly(fc.constant(1)),
      giftId: mostly(fc.option(id)),
      occurredAt: mostly(
        fc.option(
          fc.oneof(
            time,
            rightTime.map((date) => date.toISOString()),
          ),
        ),
      ),
      source: mostly(fc.option(fc.oneof(fc.string(), longText))),
      affected: mostly(
        fc.option(
          fc.array(mostly(fc.record({ personId: id, occasionId: id, note: fc.jsonValue() })), {
            maxLength: 3,
          }),
        ),
      ),
      note: fc.jsonValue(),
    },
    { requiredKeys: ['version'] },
  );
  return mostly(data).map((value) => JSON.parse(JSON.stringify(value) ?? 'null') as unknown);
}
