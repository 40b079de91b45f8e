import { Gift, GiftPerson } from './assignments.ts';
import { Occasion, Person, PersonOccasion } from './budgets.ts';
import { PendingRecalculation, RecalculationFailure } from './recalculation.ts';
import { BudgetSweep, BudgetSweepFinding } from './sweeps.ts';

/** Everything that MikroORM knows of the schema. */
export const entities = [
  Person,
  Occasion,
  PersonOccasion,
  Gift,
  GiftPerson,
  PendingRecalculation,
  RecalculationFailure,
  BudgetSweep,
  BudgetSweepFinding,
];
