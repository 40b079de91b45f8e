import { cpus } from 'node:os';
import type { Figure, Outcome } from './measure.ts';

export interface Report extends Outcome {
  readonly name: string;
  readonly isMet: boolean;
  readonly machine: string;
  readonly node: string;
  readonly seconds: number;
}

/** Prints the table and, as the last line, `bench NAME: key=value … ok`, or `… falls short`. */
export function report(name: string, outcome: Outcome, seconds: number): Report {
  const isMet = outcome.figures.every(isFigureMet);
  const [processor] = cpus();
  const machine = `${cpus().length} × ${processor?.model}`;
  for (const line of outcome.table) console.log(line);
  for (const figure of outcome.figures) console.log(`  ${describe(figure)}`);
  const shown = outcome.figures.map(({ key, value }) => `${key}=${format(value)}`).join(' ');
  console.log(`bench ${name}: ${shown} ${isMet ? 'ok' : 'falls short'}`);
  return { name, isMet, machine, node: process.version, seconds: Math.round(seconds), ...outcome };
}

function isFigureMet({ value, atLeast, atMost }: Figure): boolean {
  return value >= (atLeast ?? -Infinity) && value <= (atMost ?? Infinity);
}

function describe(figure: Figure): string {
  const { key, value, atLeast, atMost } = figure;
  const shown = `${key.padEnd(28)}${format(value).padStart(10)}`;
  if (atLeast === undefined && atMost === undefined) return `${shown}  (reported)`;
  const bound = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
  return `${shown}  ${bound}: ${isFigureMet(figure) ? 'ok' : 'falls short'}`;
}

function format(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
