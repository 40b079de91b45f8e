import dockerignore from '@balena/dockerignore';
import { type Copy, DockerfileParser, type Env, type From, type Instruction } from 'dockerfile-ast';
import { cp, mkdir, readFile, stat, symlink } from 'node:fs/promises';
import { basename, join, posix, relative } from 'node:path';
import { BASE_PATH, MOUNT_POINTS, startContainer } from './container.ts';

/** What an image holds, and what it says of its containers. */
export interface Image {
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string;
  readonly user: string;
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly healthcheck: readonly string[];
}

type Stage = { -readonly [Key in keyof Image]: Image[Key] } & { readonly name: string | null };

/**
 * Builds an image without Docker, as a Dockerfile says: step by step, each RUN as root in a container
 * on the folder that the steps before it have left. For the base image stand the programs of this
 * machine, and the Node that runs this.
 *
 * @param base the base image that the Dockerfile is expected to name.
 * @param directory an empty one; the caller removes it.
 */
export async function buildImage(context: string, base: string, directory: string): Promise<Image> {
  const dockerfile = DockerfileParser.parse(await readFile(join(context, 'Dockerfile'), 'utf8'));
  const stages: Stage[] = [];
  for (const instruction of dockerfile.getInstructions()) {
    if (instruction.getKeyword() === 'FROM') {
      stages.push(await beginStage(instruction as From, base, stages, directory));
    } else {
      await step(instruction, stages, context);
    }
  }
  return stages.at(-1)!;
}

async function beginStage(
  from: From,
  base: string,
  stages: readonly Stage[],
  directory: string,
): Promise<Stage> {
  const root = join(directory, `stage-${stages.length}`);
  const parent = stages.find(({ name }) => name === from.getImage());
  const name = from.getBuildStage();
  if (parent !== undefined) {
    await cp(parent.root, root, { recursive: true, verbatimSymlinks: true });
    return { ...structuredClone(parent), root, name };
  }
  if (from.getImage() !== base) throw new Error(`${from.getImage()} is no stage, and not ${base}`);
  for (const point of MOUNT_POINTS) await mkdir(join(root, point), { recursive: true });
  for (const link of ['bin', 'lib', 'lib64', 'sbin'])
    await symlink(`usr/${link}`, join(root, link));
  const nothing = { entrypoint: [], cmd: [], healthcheck: [] };
  return { ...nothing, root, name, env: { PATH: BASE_PATH }, workdir: '/', user: '0:0' };
}

async function step(
  instruction: Instruction,
  stages: readonly Stage[],
  context: string,
): Promise<void> {
  const stage = stages.at(-1)!;
  const text = instruction.getArgumentsContent() ?? '';
  const keyword = instruction.getKeyword();
  if (keyword === 'WORKDIR') {
    stage.workdir = posix.resolve(stage.workdir, text);
    await mkdir(join(stage.root, stage.workdir), { recursive: true });
  } else if (keyword === 'ENV') {
    const before = stage.env;
    const set = (instruction as Env).getProperties().map((property) => {
      const value = property.getValue()!.replaceAll(/\$(\w+)/g, (_, name) => before[name] ?? '');
      return [property.getName(), value];
    });
    stage.env = { ...before, ...Object.fromEntries(set) };
  } else if (keyword === 'COPY') await copy(instruction as Copy, stages, context);
  else if (keyword === 'RUN') await run(stage, text);
  else if (keyword === 'USER') stage.user = text;
  // Only the form that needs no shell is taken.
  else if (keyword === 'ENTRYPOINT') stage.entrypoint = JSON.parse(text);
  else if (keyword === 'CMD') stage.cmd = JSON.parse(text);
  else if (keyword === 'HEALTHCHECK') stage.healthcheck = JSON.parse(text.replace(/^CMD/, ''));
  else if (keyword !== 'EXPOSE') throw new Error(`${keyword} is not known here`);
}

/** As Docker does: of a folder what is in it; into a name that ends with a slash. */
async function copy(instruction: Copy, stages: readonly Stage[], context: string): Promise<void> {
  const { root, workdir } = stages.at(-1)!;
  const paths = instruction.getArguments().map((argument) => argument.getValue());
  const target = join(root, posix.resolve(workdir, paths.pop()!));
  const flag = instruction.getFromFlag()?.getValue();
  const ignored = dockerignore
    .default()
    .add(await readFile(join(context, '.dockerignore'), 'utf8'));
  for (const path of paths) {
    const source = join(flag == null ? context : stageNamed(flag, stages).root, path);
    const isSent = (file: string): boolean =>
      flag != null || !ignored.ignores(relative(context, file));
    if (!isSent(source)) throw new Error(`.dockerignore leaves out ${path}`);
    const into = (await stat(source)).isDirectory() ? target : join(target, basename(path));
    await cp(source, into, { recursive: true, verbatimSymlinks: true, filter: isSent });
  }
}

function stageNamed(name: string, stages: readonly Stage[]): Stage {
  const found = stages.find((stage) => stage.name === name);
  if (found === undefined) throw new Error(`there is no stage ${name}`);
  return found;
}

async function run({ root, env, workdir }: Stage, command: string): Promise<void> {
  const container = startContainer({
    root,
    env: { ...env, HOME: '/root', npm_config_prefer_offline: 'true', ...machineEnvironment() },
    workdir,
    user: '0:0',
    isWritable: true,
    command: ['/bin/sh', '-c', command],
  });
  const { code, out, err } = await container.ended();
  if (code !== 0) throw new Error(`RUN ${command} ended with ${code}: ${out}${err}`);
}

/** How this machine reaches registries is its own matter, in no Dockerfile. */
function machineEnvironment(): Record<string, string> {
  const own = /^(https?_proxy|no_proxy|npm_config_registry|NODE_EXTRA_CA_CERTS)$/i;
  const found = Object.entries(process.env).filter(([name]) => own.test(name));
  return Object.fromEntries(found) as Record<string, string>;
}
