import { describe, expect, it } from 'vitest';
import { GIFT_EVENT_NAMES, GiftEventInvalidError, parseGiftEvent } from '../src/events/contract.ts';

const pair = { personId: 1, occasionId: 2 };
const understood = { personId: '1', occasionId: '2' };

const NAMES = [
  'gift.assigned',
  'gift.unassigned',
  'gift.repriced',
  'gift.moved',
  'budget.recalculate',
] as const;
const NEED_PAIRS = ['gift.unassigned', 'gift.moved', 'budget.recalculate'] as const;
const GIFT_IS_ENOUGH = ['gift.assigned', 'gift.repriced'] as const;

describe('the name', () => {
  it.each(NAMES)('%s is understood', (name) => {
    const event = parseGiftEvent(name, { version: 1, affected: [pair] });
    expect(event).toEqual({ name, data: { version: 1, affected: [understood] } });
  });

  it('of an unknown event is refused, with the names that are known', () => {
    expect(GIFT_EVENT_NAMES).toEqual(NAMES);
    const known = NAMES.join(', ');
    expect(refusal('gift.asigned', { version: 1, affected: [pair] })).toBe(
      `name: expected one of ${known}, got "gift.asigned"`,
    );
    // BullMQ hands over a job whose hash is gone like this.
    expect(refusal(undefined, {})).toBe(`name: expected one of ${known}, got nothing`);
  });
});

describe('affected', () => {
  it.each(NAMES)('of %s is 1 to 500 pairs', (name) => {
    const data = (pairs: number) => ({ version: 1, affected: Array(pairs).fill(pair) });
    expect(parseGiftEvent(name, data(1)).data.affected).toHaveLength(1);
    expect(parseGiftEvent(name, data(500)).data.affected).toHaveLength(500);
    expect(refusal(name, data(0))).toBe('data.affected: expected a list of 1 to 500 pairs, got []');
    expect(refusal(name, data(501))).toBe(
      'data.affected: expected a list of 1 to 500 pairs, got a list of 501',
    );
  });

  it.each(GIFT_IS_ENOUGH)('may be left out of %s that has a giftId', (name) => {
    const event = { name, data: { version: 1, giftId: '7' } };
    expect(parseGiftEvent(name, { version: 1, giftId: 7 })).toEqual(event);
    expect(parseGiftEvent(name, { version: 1, giftId: 7, affected: null }).data.giftId).toBe('7');
    for (const neither of [{ version: 1 }, { version: 1, giftId: null }]) {
      expect(refusal(name, neither)).toBe(
        'data.affected: expected at least one of affected and giftId, got nothing',
      );
    }
  });

  it.each(NEED_PAIRS)('may not be left out of %s, whose gift no longer tells it', (name) => {
    expect(refusal(name, { version: 1, giftId: 7 })).toBe(
      'data.affected: expected a list of 1 to 500 pairs, got nothing',
    );
    expect(refusal(name, { version: 1, giftId: 7, affected: null })).toBe(
      'data.affected: expected a list of 1 to 500 pairs, got null',
    );
  });

  it.each([
    [
      pair,
      'data.affected: expected a list of 1 to 500 pairs, got an object with "personId", "occasionId"',
    ],
    ['1-2', 'data.affected: expected a list of 1 to 500 pairs, got "1-2"'],
    [
      [[1, 2]],
      'data.affected[0]: expected a pair: an object with personId and occasionId, got a list of 2',
    ],
    [
      [pair, null],
      'data.affected[1]: expected a pair: an object with personId and occasionId, got null',
    ],
  ])('is refused as %j', (affected, message) => {
    expect(refusal('gift.moved', { version: 1, affected })).toBe(message);
  });
});

describe('an id', () => {
  it.each([
    [1, '1'],
    ['1', '1'],
    [Number.MAX_SAFE_INTEGER, '9007199254740991'],
    ['9007199254740993', '9007199254740993'],
    ['9223372036854775807', '9223372036854775807'],
  ])('may be %j', (id, personId) => {
    const { data } = parseGiftEvent('gift.moved', {
      version: 1,
      affected: [{ ...pair, personId: id }],
    });
    expect(data.affected).toEqual([{ personId, occasionId: '2' }]);
    expect(parseGiftEvent('gift.repriced', { version: 1, giftId: id }).data.giftId).toBe(personId);
  });

  it.each([
    [0, '0'],
    [-1, '-1'],
    [1.5, '1.5'],
    [NaN, 'NaN'],
    ['0', '"0"'],
    ['-1', '"-1"'],
    ['01', '"01"'],
    ['1.0', '"1.0"'],
    ['1e3', '"1e3"'],
    [' 1', '" 1"'],
    ['1\n', String.raw`"1\n"`],
    ['', '""'],
    ['nobody', '"nobody"'],
    ['9223372036854775808', '"9223372036854775808"'],
    ['10000000000000000000', '"10000000000000000000"'],
    [null, 'null'],
    [undefined, 'nothing'],
    [true, 'true'],
    [[], '[]'],
    [{}, '{}'],
    [{ id: 1 }, 'an object with "id"'],
    // Whatever turns this into a number or a text by accident throws.
    [{ valueOf: 1, toString: 1 }, 'an object with "valueOf", "toString"'],
  ])('may not be %j', (id, shown) => {
    const expected =
      'expected an id: a whole number from 1 to 9223372036854775807, as a number or a string';
    const affected = [pair, { ...pair, occasionId: id }];
    expect(refusal('gift.moved', { version: 1, affected })).toBe(
      `data.affected[1].occasionId: ${expected}, got ${shown}`,
    );
    if (id != null) {
      expect(refusal('gift.repriced', { version: 1, giftId: id })).toBe(
        `data.giftId: ${expected}, got ${shown}`,
      );
    }
  });

  it.each([2 ** 53, 1e300])('may not be the number %d, which may be a rounded other id', (id) => {
    const affected = [{ ...pair, personId: id }];
    expect(refusal('gift.moved', { version: 1, affected })).toBe(
      `data.affected[0].personId: expected an id above 9007199254740991 as a string, because a number does not hold it exactly, got ${id}`,
    );
  });
});

describe('the data', () => {
  it.each([
    [null, 'data: expected an object, got null'],
    [undefined, 'data: expected an object, got nothing'],
    ['{"version":1}', String.raw`data: expected an object, got "{\"version\":1}"`],
    [[pair], 'data: expected an object, got a list of 1'],
    [7, 'data: expected an object, got 7'],
    [
      {},
      'data.version: expected 1, got nothing; data.affected: expected a list of 1 to 500 pairs, got nothing',
    ],
    [{ affected: [pair] }, 'data.version: expected 1, got nothing'],
    [{ version: 2, affected: [pair] }, 'data.version: expected 1, got 2'],
    [{ version: '1', affected: [pair] }, 'data.version: expected 1, got "1"'],
  ])('%j is refused', (data, message) => {
    expect(refusal('gift.moved', data)).toBe(message);
  });

  it('may carry when and from where, or null for them', () => {
    const more = { occurredAt: '2026-12-24T18:30:00.5+01:00', source: 'gift lists' };
    const data = { version: 1, affected: [pair] };
    const { data: read } = parseGiftEvent('gift.moved', { ...data, ...more });
    expect(read).toEqual({ ...more, version: 1, affected: [understood] });
    const nulls = { giftId: null, occurredAt: null, source: null };
    expect(parseGiftEvent('gift.moved', { ...data, ...nulls }).data.affected).toEqual([understood]);
  });

  it.each([
    '2026-12-24',
    '2026-12-24T18:30:00',
    '2026-02-30T18:30:00Z',
    'yesterday',
    1_798_137_000,
  ])('may not have occurred at %j', (occurredAt) => {
    expect(refusal('gift.moved', { version: 1, affected: [pair], occurredAt })).toBe(
      `data.occurredAt: expected a time with its offset, as 2026-12-24T18:30:00Z or 2026-12-24T18:30:00+01:00, got ${JSON.stringify(occurredAt)}`,
    );
  });

  it('names its source in at most 200 characters, whatever their alphabet', () => {
    const from = (source: unknown) => ({ version: 1, affected: [pair], source });
    expect(parseGiftEvent('gift.moved', from('🎁'.repeat(200))).data.source).toHaveLength(400);
    const expected = 'data.source: expected a text of at most 200 characters';
    expect(refusal('gift.moved', from('🎁'.repeat(201)))).toBe(
      `${expected}, got "${'🎁'.repeat(40)}"…`,
    );
    expect(refusal('gift.moved', from(7))).toBe(`${expected}, got 7`);
  });

  it('may have fields of the sender’s own everywhere, which are dropped', () => {
    const own = { note: 'for Mom', ['__proto__']: { version: 2 }, nested: { deep: [1] } };
    const data = { version: 1, affected: [{ ...pair, ...own }], ...own };
    const event = { name: 'gift.moved', data: { version: 1, affected: [understood] } };
    expect(parseGiftEvent('gift.moved', data)).toEqual(event);
  });
});

describe('a refusal', () => {
  it('names the first three wrong fields and counts the rest', () => {
    const affected = [{ personId: 0, occasionId: 2 }];
    const wrong = { version: 2, giftId: 'x', occurredAt: 'now', source: 7, affected };
    expect(refusal('gift.moved', wrong)).toMatch(
      /^data\.version: .*; data\.giftId: .*; data\.occurredAt: .*; and 2 more$/,
    );
  });

  it.each([
    ['text', 'x'.repeat(5_000_000)],
    ['text of what JSON escapes', '\0'.repeat(5_000_000)],
    ['list', Array(1_000_000).fill({})],
    ['object', Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`field ${n}`, n]))],
    ['nesting', JSON.parse('['.repeat(100_000) + ']'.repeat(100_000)) as unknown],
  ])('is short for a huge %s, wherever it is', (_, huge) => {
    expect(refusal(huge, {}).length).toBeLessThan(3_000);
    expect(refusal('gift.moved', huge).length).toBeLessThan(3_000);
    const affected = [{ personId: huge, occasionId: huge }];
    for (const field of [{ affected }, { affected: huge }, { source: huge }, { giftId: huge }]) {
      expect(refusal('gift.moved', { version: huge, ...field }).length).toBeLessThan(3_000);
    }
  });

  it('can be stored by PostgreSQL: no NUL, no half of a surrogate pair', () => {
    const source = `${'x'.repeat(79)}🎁\0${'x'.repeat(200)}`;
    const message = refusal('gift.moved', { version: '\0\uD83C', affected: [pair], source });
    expect(message).not.toContain('\0');
    expect(message.isWellFormed()).toBe(true);
  });
});

function refusal(name: unknown, data: unknown): string {
  try {
    parseGiftEvent(name, data);
  } catch (error) {
    expect(error).toBeInstanceOf(GiftEventInvalidError);
    return (error as GiftEventInvalidError).message;
  }
  throw new Error('the event was understood');
}
