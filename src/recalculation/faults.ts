/**
 * Whose fault an error of a recalculation is:
 * - `pair`: the data of one pair; trying again without a change gives the same error;
 * - `slow`: a statement ran into a time limit; a smaller batch may not;
 * - `environment`: anything else (connection lost, server restarting, schema being migrated); it
 *   passes or an operator mends it, and no pair is to blame.
 */
export type Fault = 'pair' | 'slow' | 'environment';

// https://www.postgresql.org/docs/current/errcodes-appendix.html
const PAIR_CLASSES = new Set([
  '21', // cardinality violation: a subquery of a replaced view gave more than one row
  '22', // data exception: out of range, division by zero, malformed text
  '23', // integrity constraint: a check of the adopter's own on person_occasions
  'P0', // raised by a PL/pgSQL function of a replaced view or a trigger
]);
const QUERY_CANCELED = '57014';

export function faultOf(error: unknown): Fault {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== 'string') return 'environment';
  if (code === QUERY_CANCELED) return 'slow';
  return PAIR_CLASSES.has(code.slice(0, 2)) && code.length === 5 ? 'pair' : 'environment';
}
