import { defineEntity, p } from '@mikro-orm/core';

/** Somebody who is given gifts. */
export const Person = defineEntity({
  name: 'Person',
  tableName: 'persons',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    name: p.text(),
  },
});

/** What gifts are given for: Christmas 2026, somebody's birthday. */
export const Occasion = defineEntity({
  name: 'Occasion',
  tableName: 'occasions',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    name: p.text(),
    date: p.date().nullable(),
  },
});

/**
 * A budget: what is planned for a person and an occasion, and what its assignments use of it.
 * `budgetSpent` is derived: only the recalculation writes it.
 */
export const PersonOccasion = defineEntity({
  name: 'PersonOccasion',
  tableName: 'person_occasions',
  properties: {
    person: () =>
      p.manyToOne(Person).primary().deleteRule('cascade').updateRule('cascade').index(false),
    occasion: () =>
      p.manyToOne(Occasion).primary().deleteRule('cascade').updateRule('cascade').index(false),
    budgetAmount: p.decimal('string').precision(10).scale(2).nullable(),
    budgetSpent: p.decimal('string').precision(10).scale(2).defaultRaw('0'),
    budgetCurrency: p.string().length(3).default('USD'),
    budgetNotes: p.text().nullable(),
  },
  indexes: [
    {
      name: 'idx_person_occasion_budget',
      properties: ['person', 'occasion', 'budgetAmount'],
    },
    { name: 'idx_person_occasion_occasion', properties: ['occasion', 'person'] },
  ],
  checks: [
    {
      name: 'person_occasions_budget_amount_check',
      expression: `budget_amount >= 0 and budget_amount <> 'NaN'::numeric`,
    },
    { name: 'person_occasions_budget_spent_check', expression: `budget_spent <> 'NaN'::numeric` },
    {
      name: 'person_occasions_budget_currency_check',
      expression: `budget_currency ~ '^[A-Z]{3}$'`,
    },
  ],
});
