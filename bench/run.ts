import { recalculateBench } from './recalculate.ts';

/** One benchmark: does its own set-up and clean-up, prints, and says whether it met its marks. */
export type Bench = () => Promise<void>;

const benches: Readonly<Record<string, Bench>> = { recalculate: recalculateBench };

const names = process.argv.slice(2);
const unknown = names.filter((name) => !(name in benches));
if (names.length === 0 || unknown.length > 0) {
  if (unknown.length > 0) console.error(`unknown benchmark: ${unknown.join(', ')}`);
  console.error(`usage: npm run bench -- NAME…\nbenchmarks: ${Object.keys(benches).join(', ')}`);
  process.exit(1);
}
for (const name of names) await benches[name]!();
