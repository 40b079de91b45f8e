import type { ListedFailure } from '../recalculation/failures.ts';
import type { Sweep } from '../recalculation/sweep-record.ts';
import { type Advice, advise, seconds } from './advice.ts';
import { html, type Html } from './html.ts';
import type { Overview } from './overview.ts';
import { QUEUE_BOARD_PATH } from './queue-board.ts';
import type { FailedJob } from './queue-state.ts';

/** The whole page; its script asks for {@link overviewBody} from then on. */
export function overviewPage(overview: Overview): Html {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <meta name="color-scheme" content="light dark" />
        <title>${titleOf(advise(overview))} · gift-budgets</title>
        <link rel="icon" href="/overview.svg" type="image/svg+xml" />
        <link rel="stylesheet" href="/overview.css" />
        <script src="/overview.js" defer></script>
        <noscript><meta http-equiv="refresh" content="5" /></noscript>
      </head>
      <body>
        <header>
          <h1>gift-budgets</h1>
          <nav>
            <a href="${QUEUE_BOARD_PATH}">Queue</a> <a href="/readyz">Ready?</a>
            <a href="/metrics">Metrics</a>
          </nav>
        </header>
        <p id="lost" role="alert" hidden></p>
        <main id="overview">${overviewBody(overview)}</main>
      </body>
    </html> `;
}

/** The parts that change, each in an element that is replaced only where it did. */
export function overviewBody(overview: Overview): Html {
  const advice = advise(overview);
  return html`
    ${verdict(advice)}
    ${part(
      'advice',
      advice.length === 0
        ? null
        : html`<ul>
            ${advice.map(adviceItem)}
          </ul>`,
    )}
    ${part('figures', html`<dl>${figures(overview)}</dl>`)}
    ${part('failures', failuresTable(overview))} ${part('jobs', jobsTable(overview))}
    ${part('sweeps', sweepsTable(overview))} ${part('moment', moment(overview))}
  `;
}

function moment({ at, backend }: Overview): Html {
  const where = backend === 'redis' ? 'Redis' : 'PostgreSQL';
  return html`<p>
    As of ${time(at)}. The queue is in ${where}. Rates are of this process, over ten seconds.
  </p>`;
}

function part(name: string, content: Html | null): Html {
  return html`<section data-part="${name}">${content}</section>`;
}

function titleOf(advice: readonly Advice[]): string {
  if (advice.length === 0) return 'All is well';
  return advice.some(({ level }) => level === 'bad') ? 'Something is wrong' : 'Have a look';
}

function verdict(advice: readonly Advice[]): Html {
  const level = advice[0]?.level ?? 'good';
  const sign = { good: '✓', warn: '!', bad: '✕' }[level];
  return html`<section data-part="verdict" role="status">
    <p class="verdict ${level}">
      <span class="sign" aria-hidden="true">${sign}</span> <strong>${titleOf(advice)}</strong>
    </p>
  </section>`;
}

function adviceItem({ level, what, why, command, page }: Advice): Html {
  return html`<li class="${level}">
    <h2>${short(what)}</h2>
    <p>${why}</p>
    ${command === undefined ? null : html`<pre><code>${command}</code></pre>`}
    ${page === undefined ? null : html`<p><a href="${page}">Open its page</a></p>`}
  </li>`;
}

const UNKNOWN = '?';

function figures({ lag, rates, queue, failures }: Overview): Html[] {
  const jobs = queue.value?.jobs;
  const waiting = jobs && (jobs.waiting ?? 0) + (jobs.prioritized ?? 0) + (jobs.delayed ?? 0);
  const plus = lag.value?.isAtLeast === true ? '+' : '';
  return [
    figure('Lag', lag.value ? seconds(lag.value.seconds) : UNKNOWN),
    figure('Pending pairs', lag.value ? `${number(lag.value.pendingPairs)}${plus}` : UNKNOWN),
    figure('Events / s', rate(rates.eventsPerSecond)),
    figure('Pairs / s', rate(rates.pairsPerSecond)),
    figure('Jobs waiting', number(waiting)),
    figure('Jobs active', number(jobs && (jobs.active ?? 0))),
    figure('Jobs failed', number(jobs && (jobs.failed ?? 0))),
    figure('Not storable', number(failures.value?.count)),
  ];
}

function figure(name: string, value: string): Html {
  return html`<div>
    <dt>${name}</dt>
    <dd>${value}</dd>
  </div>`;
}

function number(value: number | undefined): string {
  return value === undefined ? UNKNOWN : value.toLocaleString('en-US');
}

function rate(value: number): string {
  return value >= 10 ? number(Math.round(value)) : value.toFixed(1);
}

function failuresTable({ failures }: Overview): Html | null {
  if (!failures.value || failures.value.first.length === 0) return null;
  const rows = failures.value.first.map(failureCells);
  return table('Totals that cannot be stored', ['Budget', 'Since', 'Reason'], rows);
}

/** Ids, not names: this page is looked at over shoulders. */
function failureCells(failure: ListedFailure): Html[] {
  const { personId, occasionId, firstFailedAt, reason } = failure;
  return [
    html`person ${personId}, occasion ${occasionId}`,
    time(firstFailedAt),
    html`${short(reason)}`,
  ];
}

function jobsTable({ queue }: Overview): Html | null {
  if (!queue.value || queue.value.lastFailed.length === 0) return null;
  const rows = queue.value.lastFailed.map(jobCells);
  return table('Gift events that failed last', ['Job', 'When', 'Reason'], rows);
}

function jobCells({ id, name, reason, failedAt }: FailedJob): Html[] {
  const page = `${QUEUE_BOARD_PATH}/queue/gift-events/${encodeURIComponent(id)}?status=failed`;
  return [
    // One element, as a narrow row has two columns: this and its name.
    html`<span><a href="${page}">${short(id)}</a> ${short(name)}</span>`,
    html`${failedAt && time(failedAt)}`,
    html`${short(reason)}`,
  ];
}

function sweepsTable({ sweeps, sweepMode }: Overview): Html {
  const rows = (sweeps.value ?? []).map(sweepCells);
  if (rows.length > 0) {
    return table('Last sweeps', ['Began', 'Took', 'Compared', 'Drifted', 'Repaired'], rows);
  }
  const why = sweeps.problem === undefined ? 'None yet.' : 'Not known.';
  return html`<h2>Last sweeps</h2>
    <p>${sweepMode === 'off' ? 'Sweeps are off.' : why}</p>`;
}

function sweepCells({ startedAt, finishedAt, mode, checked, drifted, repaired }: Sweep): Html[] {
  const took =
    finishedAt === null
      ? 'under way'
      : seconds((finishedAt.getTime() - startedAt.getTime()) / 1_000);
  return [
    time(startedAt),
    html`${took}`,
    html`${number(checked)}`,
    html`${number(drifted)}`,
    html`${mode === 'repair' ? number(repaired) : 'report only'}`,
  ];
}

/** Where it is narrow a row is a block, each cell behind the name of its column. */
function table(caption: string, columns: readonly string[], rows: readonly Html[][]): Html {
  const row = (cells: readonly Html[]): Html =>
    html`<tr>
      ${cells.map((cell, at) => html`<td data-column="${columns[at]!}">${cell}</td>`)}
    </tr>`;
  return html`<h2>${caption}</h2>
    <table>
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col">${column}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(row)}
      </tbody>
    </table>`;
}

const SHOWN_MAX = 300;

function short(text: string): string {
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
}

function time(at: Date): Html {
  const iso = at.toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 19).replace('T', ' ')} UTC</time>`;
}
