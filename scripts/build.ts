// Compiles what is published: src, the migrations and the MikroORM configuration, side by side as
// they are here, and the data files that lie among them.
import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, globSync, rmSync } from 'node:fs';
import { join } from 'node:path';

rmSync('dist', { recursive: true, force: true });
execFileSync('tsc', ['-p', 'tsconfig.build.json'], { stdio: 'inherit' });
for (const file of globSync(['src/**/*.csv', 'src/**/pages/*'])) cpSync(file, join('dist', file));
chmodSync('dist/src/cli.js', 0o755);
