import { readLag } from '../../budgets/lag.ts';
import type { Queryable } from '../../database.ts';
import { seconds } from '../advice.ts';
import { count } from '../diagnosis.ts';
import { error, type Finding, ok, warning } from './finding.ts';

/** As `start` names its connections. */
export const WORKER_NAME = 'gift-budgets worker';

/** Whether somebody does the work, and how far behind it is. */
export async function checkWork(db: Queryable, lagSecondsMax: number): Promise<readonly Finding[]> {
  const lag = await readLag(db);
  const { rows } = await db.query(
    `select count(*)::int as connections from pg_stat_activity
      where datname = current_database() and application_name = $1`,
    [WORKER_NAME],
  );
  const isWorked = (rows[0]!.connections as number) > 0;
  const pairs = `${lag.isAtLeast ? 'at least ' : ''}${count(lag.pendingPairs, 'pair')} pending`;
  const found =
    lag.seconds === 0
      ? 'nothing is pending'
      : `the totals are ${seconds(lag.seconds)} behind, ${pairs}`;
  const isLate = lag.seconds > lagSecondsMax;
  if (!isWorked) {
    const tell = isLate ? error : warning;
    return [
      tell(`no worker is connected to this database; ${found}`, {
        why: 'Changes wait, marked, until there is one. Nothing is lost meanwhile.',
        shell: ['gift-budgets start'],
      }),
    ];
  }
  if (!isLate) return [ok(`a worker is connected, ${found}`)];
  return [
    error(found, {
      why:
        'A worker is connected, but does not get at these: a budget that is held (holders), a ' +
        'schema that does not fit (schema), slow looks at the marks (storage), or much to do.',
      todo: 'What else is found here says which. How it goes on:',
      shell: ['gift-budgets status'],
    }),
  ];
}
