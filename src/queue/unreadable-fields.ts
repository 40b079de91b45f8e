/** A field of a stored job that BullMQ cannot read, and what can stand in its place. */
export interface UnreadableField {
  readonly field: string;
  /** What is wrong with it, with the beginning of its text. */
  readonly problem: string;
  /** What is stored instead; null for nothing. */
  readonly replacement: string | null;
}

/** A stored job as Redis has it: texts by name of field. */
export type StoredJob = Readonly<Record<string, string>>;

/** 500 pairs with fields of their own are a tenth of this; all of it is parsed, logged and shown. */
const DATA_CHARACTERS_MAX = 1_048_576;
const NAME_CHARACTERS_MAX = 1_000;

/** JSON.parse takes any depth, JSON.stringify (of a dashboard, say) overflows the stack at ~5,000. */
const DATA_DEPTH_MAX = 500;

/** Beyond this no honest count is, and Redis' HINCRBY would overflow before long. */
const COUNT_MAX = 2 ** 31;

const TEXT_SHOWN_MAX = 80;
const TEXT_KEPT_MAX = 1_000;

/**
 * Finds what BullMQ would throw on, be it here as it parses the job or inside a script of its own
 * on Redis, where the throw is worse: between two of the script's writes. Its own producers write
 * none of this; a foreign one that writes the hash itself can.
 */
export function findUnreadable(job: StoredJob): UnreadableField[] {
  const found: UnreadableField[] = [];
  const report = (field: string, problem: string, replacement: string | null): void => {
    const text = job[field] ?? '';
    found.push({ field, problem: `${field} ${problem}: ${show(text)}`, replacement });
  };
  const dataProblem = problemOfData(job.data);
  if (dataProblem) report('data', dataProblem, dataInstead(job.data!));
  if (job.name !== undefined && job.name.length > NAME_CHARACTERS_MAX) {
    const problem = `has ${job.name.length} characters, more than ${NAME_CHARACTERS_MAX}`;
    report('name', problem, job.name.slice(0, NAME_CHARACTERS_MAX));
  }
  if (job.opts && !isObject(parse(job.opts))) report('opts', 'is not a JSON object', '{}');
  if (job.progress && parse(job.progress) === undefined) report('progress', 'is not JSON', '0');
  if (job.parent !== undefined && !isParent(parse(job.parent))) {
    report('parent', 'is not a JSON object with id and queueKey', null);
  }
  // The parent's id is what follows the last colon of its key; with no colon the script throws.
  if (job.parentKey && !/.:./s.test(job.parentKey)) report('parentKey', 'is not a job key', null);
  for (const field of ['ats', 'atm', 'attemptsMade', 'stc']) {
    if (job[field] !== undefined && !isCount(job[field])) report(field, 'is not a count', '0');
  }
  return found;
}

/** The job with its unreadable fields replaced. */
export function withReplacements(job: StoredJob, found: readonly UnreadableField[]): StoredJob {
  const readable: Record<string, string> = { ...job };
  for (const { field, replacement } of found) {
    if (replacement === null) delete readable[field];
    else readable[field] = replacement;
  }
  return readable;
}

export function describeUnreadable(found: readonly UnreadableField[]): string {
  return `unreadable job: ${found.map(({ problem }) => problem).join('; ')}`;
}

function problemOfData(text: string | undefined): string | null {
  if (!text) return null;
  if (text.length > DATA_CHARACTERS_MAX) {
    return `has ${text.length} characters, more than ${DATA_CHARACTERS_MAX}`;
  }
  if (parse(text) === undefined) return 'is not JSON';
  if (text.length > 2 * DATA_DEPTH_MAX && depthOf(text) > DATA_DEPTH_MAX) {
    return `is nested deeper than ${DATA_DEPTH_MAX}`;
  }
  return null;
}

/** The text itself stays readable in its place, as far as it is of use to people. */
function dataInstead(text: string): string {
  return JSON.stringify({ unreadable: text.slice(0, TEXT_KEPT_MAX) });
}

/** @returns undefined where the text is not JSON; JSON itself has no such value. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isParent(value: unknown): boolean {
  return isObject(value) && typeof value.id === 'string' && typeof value.queueKey === 'string';
}

function isCount(text: string): boolean {
  return /^[0-9]{1,10}$/.test(text) && Number(text) < COUNT_MAX;
}

/** The nesting of a text that is JSON. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [bracket] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (bracket === '[' || bracket === '{') deepest = Math.max(deepest, (depth += 1));
    else if (bracket === ']' || bracket === '}') depth -= 1;
  }
  return deepest;
}

/** Through JSON.stringify, so that control characters and half surrogate pairs can be stored. */
function show(text: string): string {
  return `${JSON.stringify(text.slice(0, TEXT_SHOWN_MAX))}${text.length > TEXT_SHOWN_MAX ? '…' : ''}`;
}
