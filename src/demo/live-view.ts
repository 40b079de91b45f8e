import type { Queryable } from '../database.ts';
import type { Observer } from '../recalculation/observer.ts';

/** Counts what the parts tell of, for the view. */
export class LiveCounts implements Observer {
  events = 0;
  recalculated = 0;
  changed = 0;

  batch: NonNullable<Observer['batch']> = (_cause, results) => {
    this.recalculated += results.length;
    this.changed += results.filter(({ outcome }) => outcome === 'changed').length;
  };

  event: NonNullable<Observer['event']> = () => {
    this.events += 1;
  };
}

export interface Backlog {
  /** How many marks there are. */
  readonly marks: number;
  /** The age of the oldest mark, in seconds; 0 where there is none. */
  readonly lagSeconds: number;
}

export async function readBacklog(db: Queryable): Promise<Backlog> {
  const { rows } = await db.query(
    `select count(*)::int as marks,
            coalesce(extract(epoch from clock_timestamp() - min(marked_at)), 0)::float8 as lag
       from pending_recalculations`,
  );
  const { marks, lag } = rows[0] as { marks: number; lag: number };
  return { marks, lagSeconds: lag };
}

const REDRAW_MS = 100;
const LINE_MS = 1_000;

/** Shows the counts until stopped: redrawn in place on a terminal, else a line a second. */
export function startLiveView(
  db: Queryable,
  counts: LiveCounts,
  out: NodeJS.WriteStream,
): { stop(): Promise<void> } {
  const inPlace = out.isTTY;
  const draw = async (): Promise<void> => {
    const backlog = await readBacklog(db);
    const line =
      `  events ${pad(counts.events)}  recalculated ${pad(counts.recalculated)}` +
      `  changed ${pad(counts.changed)}  pending ${pad(backlog.marks)}` +
      `  lag ${backlog.lagSeconds.toFixed(2).padStart(5)} s`;
    // A line that wraps could not be drawn over.
    out.write(inPlace ? `\r${line.slice(0, out.columns - 1)}` : `${line}\n`);
  };
  let drawing = Promise.resolve();
  const timer = setInterval(
    () => (drawing = drawing.then(draw).catch(() => {})),
    inPlace ? REDRAW_MS : LINE_MS,
  );
  return {
    async stop() {
      clearInterval(timer);
      await drawing;
      await draw().catch(() => {});
      if (inPlace) out.write('\n');
    },
  };
}

function pad(count: number): string {
  return String(count).padStart(4);
}
