import { defineEntity, p } from '@mikro-orm/core';
import { Person, PersonOccasion } from './budgets.ts';

export const Gift = defineEntity({
  name: 'Gift',
  tableName: 'gifts',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    name: p.text(),
  },
});

/**
 * An assignment: this gift, for this person, for this occasion, at this amount in the currency of
 * the budget. No occasion: not yet for any, counts nowhere. No amount: price unknown, counts as
 * nothing. A negative amount is a refund or a discount.
 */
export const GiftPerson = defineEntity({
  name: 'GiftPerson',
  tableName: 'gift_persons',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    gift: () =>
      p.manyToOne(Gift).deleteRule('cascade').updateRule('cascade').index('idx_gift_person_gift'),
    person: () => p.manyToOne(Person).deleteRule('cascade').updateRule('cascade').index(false),
    occasionId: p.bigint('string').nullable(),
    budget: () =>
      p
        .manyToOne(PersonOccasion)
        .joinColumns('person_id', 'occasion_id')
        .ownColumns()
        .nullable()
        .deleteRule('cascade')
        .updateRule('cascade')
        .index(false),
    amount: p.decimal('string').precision(10).scale(2).nullable(),
  },
  indexes: [
    {
      name: 'idx_gift_person_contribution',
      expression:
        'create index "idx_gift_person_contribution" on "gift_persons" ("person_id", "occasion_id") include ("amount")',
    },
  ],
  checks: [{ name: 'gift_persons_amount_check', expression: `amount <> 'NaN'::numeric` }],
});
