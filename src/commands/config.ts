import { Command, Option } from 'commander';
import type { ShownSetting } from '../config-shown.ts';
import type { CommandContext } from './context.ts';
import { type Column, type Format, FORMATS, renderRows } from './table.ts';

export function configCommand(context: CommandContext): Command {
  return new Command('config')
    .summary('the settings in effect, without their secrets')
    .description(
      'Prints every setting, its value, and whether the environment sets it or it is the default. ' +
        'Passwords are not shown. It connects to nothing.',
    )
    .addOption(
      new Option('--format <format>', 'how to write them').choices(FORMATS).default('table'),
    )
    .addHelpText('after', '\nExit codes: 0 printed, 1 a setting is wrong (the message says which).')
    .action(async ({ format }: { format: Format }) => {
      for await (const text of renderRows(format, COLUMNS, allAtOnce(context.settings()))) {
        context.print(text);
      }
    });
}

const COLUMNS: readonly Column<ShownSetting>[] = [
  { name: 'setting', value: ({ name }) => name },
  { name: 'value', value: ({ value }) => value },
  { name: 'from', value: ({ isSet }) => (isSet ? 'environment' : 'default') },
];

async function* allAtOnce<Row>(rows: Row[]): AsyncGenerator<Row[], void, undefined> {
  yield rows;
}
