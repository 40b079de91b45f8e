import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export function readDocument(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

/** The examples of a document that are in this language, in their order. */
export function codeBlocks(document: string, language: string): string[] {
  return [...document.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(
    ([, code]) => code!,
  );
}

/** @throws what the compiler says of modules as a user of the package would have them. */
export function mustTypeCheck(modules: readonly string[]): void {
  const parent = join(ROOT, 'node_modules/.cache');
  mkdirSync(parent, { recursive: true });
  const directory = mkdtempSync(join(parent, 'gift-budgets-documents-'));
  try {
    const files = modules.map((_, place) => `module${place}.ts`);
    files.forEach((file, place) => writeFileSync(join(directory, file), modules[place]!));
    const paths = { 'gift-budgets': [join(ROOT, 'src/index.ts')] };
    const config = {
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: { paths, noUnusedLocals: false },
      files,
      include: [],
    };
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(config));
    execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', directory], { encoding: 'utf8' });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Runs a module as it stands in a document, in a process of its own; returns what it printed. */
export async function runModule(module: string, env: NodeJS.ProcessEnv): Promise<string> {
  const source = module.replace("'gift-budgets'", "'./src/index.ts'");
  const args = ['--input-type=module-typescript', '--eval', source];
  const options = { cwd: ROOT, env: { ...process.env, ...env }, timeout: 30_000 };
  const { stdout } = await promisify(execFile)(process.execPath, args, options);
  return stdout;
}
