import { defineEntity, p } from '@mikro-orm/core';

/**
 * A mark: "this pair may be wrong", written by a trigger in the writer's own transaction. With
 * `everything` it stands for every budget whose key is greater than its own, or for all.
 */
export const PendingRecalculation = defineEntity({
  name: 'PendingRecalculation',
  tableName: 'pending_recalculations',
  properties: {
    id: p.bigint('string').primary().generated('by default as identity'),
    personId: p.bigint('string').nullable(),
    occasionId: p.bigint('string').nullable(),
    everything: p.boolean().default(false),
    markedAt: p.datetime().defaultRaw('clock_timestamp()').columnType('timestamptz'),
  },
  indexes: [
    { name: 'idx_pending_recalculation_pair', properties: ['personId', 'occasionId'] },
    {
      name: 'idx_pending_recalculation_everything',
      expression:
        'create index "idx_pending_recalculation_everything" on "pending_recalculations" ("id") where everything',
    },
  ],
  checks: [
    {
      name: 'pending_recalculations_pair_check',
      expression: 'everything or (person_id is not null and occasion_id is not null)',
    },
  ],
});

/** A pair whose sum cannot be stored; listed until a change makes it fit. */
export const RecalculationFailure = defineEntity({
  name: 'RecalculationFailure',
  tableName: 'recalculation_failures',
  properties: {
    personId: p.bigint('string').primary(),
    occasionId: p.bigint('string').primary(),
    reason: p.text(),
    total: p.text().nullable(),
    attempts: p.integer().default(1),
    firstFailedAt: p.datetime().defaultRaw('clock_timestamp()').columnType('timestamptz'),
    lastFailedAt: p.datetime().defaultRaw('clock_timestamp()').columnType('timestamptz'),
  },
});
