import { describeMisfit } from './schema-watch.ts';
import type { Vitals } from './vitals.ts';

/** The parts that the work needs, each with what is wrong with it; null where nothing is. */
export interface Readiness {
  readonly database: string | null;
  readonly migrations: string | null;
  readonly queue: string | null;
}

export async function readReadiness(vitals: Vitals): Promise<Readiness> {
  const [schema, queue] = await Promise.all([vitals.schema(), vitals.queue()]);
  const misfit = schema.value === undefined ? null : describeMisfit(schema.value);
  return {
    database: schema.problem ?? null,
    migrations:
      schema.problem === undefined
        ? misfit && `${misfit.problem}: ${misfit.todo}`
        : 'not known, the database does not answer',
    queue: queue.problem ?? null,
  };
}
