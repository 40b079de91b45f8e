import { styleText } from 'node:util';
import type { NamedBudget } from '../budgets/named-budgets.ts';

/** So that a line fits a terminal of 80 columns. */
const BAR_CELLS = 12;

/** The budgets as a table, grouped by occasion, with a bar for what is used of each. */
export function budgetBars(budgets: readonly NamedBudget[], colour: boolean): string {
  const occasions = Map.groupBy(budgets, (budget) => budget.occasion);
  const personWidth = Math.max(...budgets.map((budget) => budget.person.length));
  return [...occasions]
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([occasion, rows]) =>
      [paint('bold', occasion, colour), ...rows.map((row) => line(row, personWidth, colour))].join(
        '\n',
      ),
    )
    .join('\n\n');
}

function line(budget: NamedBudget, personWidth: number, colour: boolean): string {
  const { person, spent, amount, percentUsed, isOver } = budget;
  const ofWhat = amount === null ? '(no budget)'.padEnd(13) : `of ${amount.padStart(9)} `;
  const money = `${spent.padStart(9)} ${ofWhat}${budget.currency}`;
  const percent = (percentUsed === null ? '' : `${percentUsed} %`).padStart(9);
  const over = isOver ? paint('red', '  over', colour) : '';
  return `  ${person.padEnd(personWidth)} ${money}  ${bar(budget, colour)}${percent}${over}`;
}

/** Full at 100 percent; what is over is said beside it. */
function bar({ percentUsed, isOver }: NamedBudget, colour: boolean): string {
  const percent = Number(percentUsed ?? (isOver ? 100 : 0));
  const cells = Math.round((Math.min(Math.max(percent, 0), 100) * BAR_CELLS) / 100);
  const text = '█'.repeat(cells) + '░'.repeat(BAR_CELLS - cells);
  return paint(isOver ? 'red' : 'green', text, colour);
}

function paint(style: 'bold' | 'red' | 'green', text: string, colour: boolean): string {
  return colour ? styleText(style, text, { validateStream: false }) : text;
}
