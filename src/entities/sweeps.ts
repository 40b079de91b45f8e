import { defineEntity, p } from '@mikro-orm/core';

/** A comparison of every stored total with its sum: under way, left unfinished, or history. */
export const BudgetSweep = defineEntity({
  name: 'BudgetSweep',
  tableName: 'budget_sweeps',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    mode: p.text(),
    startedAt: p
      .datetime()
      .defaultRaw('clock_timestamp()')
      .columnType('timestamptz')
      .index('idx_budget_sweep_started'),
    finishedAt: p.datetime().columnType('timestamptz').nullable(),
    personId: p.bigint('string').nullable(),
    occasionId: p.bigint('string').nullable(),
    checked: p.bigint('string').defaultRaw('0'),
    drifted: p.bigint('string').defaultRaw('0'),
    repaired: p.bigint('string').defaultRaw('0'),
    failed: p.bigint('string').defaultRaw('0'),
  },
  indexes: [
    {
      name: 'idx_budget_sweep_unfinished',
      expression:
        'create unique index "idx_budget_sweep_unfinished" on "budget_sweeps" ((true)) where finished_at is null',
    },
  ],
  checks: [{ name: 'budget_sweeps_mode_check', expression: `mode in ('report', 'repair')` }],
});

/** Evidence: a pair that drifted, and what became of it. */
export const BudgetSweepFinding = defineEntity({
  name: 'BudgetSweepFinding',
  tableName: 'budget_sweep_findings',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    sweep: () =>
      p.manyToOne(BudgetSweep).deleteRule('cascade').updateRule('no action').index(false),
    personId: p.bigint('string'),
    occasionId: p.bigint('string'),
    stored: p.text(),
    rightTotal: p.text().nullable(),
    outcome: p.text(),
    reason: p.text().nullable(),
    foundAt: p.datetime().defaultRaw('clock_timestamp()').columnType('timestamptz'),
  },
  indexes: [{ name: 'idx_budget_sweep_finding_sweep', properties: ['sweep', 'id'] }],
});
