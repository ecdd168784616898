import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { Failure } from './failure.ts';
import { goMessage } from './json.ts';
import { SHORT_ID, ageOf, printStatus } from './pods.ts';
import { type Session, withClient } from './session.ts';
import { binarySize } from './size.ts';
import { type FormatOptions, formatOption, print, printListing } from './table.ts';

interface ListFlags extends FormatOptions {
  readonly all?: boolean;
  readonly quiet?: boolean;
}

const STATES = ['Created', 'Running', 'Exited', 'Unknown'];
const EVENTS = ['created', 'started', 'stopped', 'deleted'];
const DIGEST_START = 'sha256:'.length;

export function addCri(program: Command): void {
  const cri = program
    .command('cri')
    .description('what kubelet has on this node: containers of pods, and images');
  const on = (name: string, description: string): Command => cri.command(name).description(description);
  on('ps', 'list containers of pods that run')
    .option('-A, --all', 'those that do not run, too')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action((flags: ListFlags, command: Command) =>
      withClient(command, (session) => containers(session, flags)),
    );
  on('inspect', 'show all that is known of a container')
    .argument('<container>')
    .action((containerId: string, _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) =>
        printStatus(await client.kubernetes.runtime.containerStatus({ containerId, verbose: true }, call)),
      ),
    );
  on('logs', 'print what a container has written')
    .argument('<container>')
    .action((id: string, _flags: object, command: Command) =>
      withClient(command, (session) => logs(session, id)),
    );
  on('exec', 'run a program in a container and print what it writes, when it has ended')
    .argument('<container>')
    .argument('<command>')
    .argument('[arg...]')
    .passThroughOptions()
    .action((id: string, program: string, args: string[], _flags: object, command: Command) =>
      withClient(command, (session) => exec(session, id, [program, ...args])),
    );
  on('stats', 'show what containers of pods use')
    .addOption(formatOption())
    .action((flags: FormatOptions, command: Command) =>
      withClient(command, (session) => stats(session, flags)),
    );
  on('images', 'list images')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action((flags: ListFlags, command: Command) => withClient(command, (session) => images(session, flags)));
  on('pull', 'pull an image as kubelet does')
    .argument('<reference>')
    .action((image: string, _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        console.log((await client.kubernetes.images.pullImage({ image: { image } }, call)).imageRef);
      }),
    );
  on('rmi', 'remove images with all their names')
    .argument('<image...>')
    .action((names: string[], _flags: object, command: Command) =>
      withClient(command, (session) => removeImages(session, names)),
    );
  on('info', 'show what the runtime is and whether it is ready').action((_flags: object, command: Command) =>
    withClient(command, async ({ client, call }) =>
      printStatus(await client.kubernetes.runtime.status({ verbose: true }, call)),
    ),
  );
  on('events', 'print what becomes of pods and containers, until interrupted').action(
    (_flags: object, command: Command) => withClient(command, events),
  );
}

async function containers({ client, call }: Session, flags: ListFlags): Promise<void> {
  const { containers } = await client.kubernetes.runtime.listContainers({}, call);
  const shown = containers
    .filter(({ state }) => flags.all === true || STATES[state] === 'Running')
    .toSorted((a, b) => Number(b.createdAt - a.createdAt));
  if (flags.quiet === true) return print(shown.map(({ id }) => id));
  await printListing(
    {
      header: ['CONTAINER', 'IMAGE', 'CREATED', 'STATE', 'NAME', 'ATTEMPT', 'POD'],
      rows: shown.map(({ id, image, createdAt, state, metadata, podSandboxId }) => [
        id.slice(0, SHORT_ID),
        image?.image ?? '',
        ageOf(createdAt),
        STATES[state] ?? '',
        metadata?.name ?? '',
        String(metadata?.attempt ?? 0),
        podSandboxId.slice(0, SHORT_ID),
      ]),
      json: shown.map(goMessage),
    },
    flags,
  );
}

/** A line of a log: when, which stream, whether the line goes on (`P`) or ends (`F`), and its text. */
const LINE = /^\S+ (stdout|stderr) ([PF])\S* ?(.*)$/s;

async function logs({ client, call }: Session, containerId: string): Promise<void> {
  const { status } = await client.kubernetes.runtime.containerStatus({ containerId }, call);
  if (status === undefined || status.logPath === '')
    throw new Failure(`container ${containerId} keeps no log`);
  const text = await readFile(status.logPath, 'utf8');
  for (const line of text.split('\n')) {
    const [, stream, tag, rest = ''] = LINE.exec(line) ?? [];
    if (stream === undefined) continue;
    const output = stream === 'stdout' ? process.stdout : process.stderr;
    output.write(tag === 'P' ? rest : `${rest}\n`);
  }
}

async function exec({ client, call, globals }: Session, containerId: string, cmd: string[]): Promise<void> {
  const timeout = BigInt(Math.ceil(globals.timeout / 1000));
  const answer = await client.kubernetes.runtime.execSync({ containerId, cmd, timeout }, call);
  process.stdout.write(answer.stdout);
  process.stderr.write(answer.stderr);
  process.exitCode = answer.exitCode;
}

async function stats({ client, call }: Session, flags: FormatOptions): Promise<void> {
  const { stats } = await client.kubernetes.runtime.listContainerStats({}, call);
  await printListing(
    {
      header: ['CONTAINER', 'NAME', 'CPU', 'MEMORY', 'DISK', 'INODES'],
      rows: stats.map(({ attributes, cpu, memory, writableLayer }) => [
        attributes?.id.slice(0, SHORT_ID) ?? '',
        attributes?.metadata?.name ?? '',
        `${(Number(cpu?.usageCoreNanoSeconds?.value ?? 0n) / 1e9).toFixed(3)}s`,
        binarySize(Number(memory?.workingSetBytes?.value ?? 0n)),
        binarySize(Number(writableLayer?.usedBytes?.value ?? 0n)),
        String(writableLayer?.inodesUsed?.value ?? 0n),
      ]),
      json: stats.map(goMessage),
    },
    flags,
  );
}

async function images({ client, call }: Session, flags: ListFlags): Promise<void> {
  const { images } = await client.kubernetes.images.listImages({}, call);
  if (flags.quiet === true) return print(images.map(({ id }) => id));
  await printListing(
    {
      header: ['IMAGE', 'ID', 'SIZE', 'PINNED'],
      rows: images.map(({ id, repoTags, repoDigests, size, pinned }) => [
        repoTags[0] ?? repoDigests[0] ?? '<none>',
        id.slice(DIGEST_START, DIGEST_START + SHORT_ID),
        binarySize(Number(size)),
        pinned ? 'yes' : '',
      ]),
      json: images.map(goMessage),
    },
    flags,
  );
}

async function removeImages({ client, call }: Session, names: readonly string[]): Promise<void> {
  for (const image of names) {
    const { image: found } = await client.kubernetes.images.imageStatus({ image: { image } }, call);
    if (found === undefined)
      throw new Failure(`image ${image}: not found`, 'see what is there: moor cri images');
    await client.kubernetes.images.removeImage({ image: { image } }, call);
    console.log(image);
  }
}

async function events({ client, call }: Session): Promise<void> {
  for await (const event of client.kubernetes.runtime.getContainerEvents({}, call)) {
    const { createdAt, containerEventType, containerId, podSandboxStatus } = event;
    const time = new Date(Number(createdAt / 1_000_000n)).toISOString();
    const { namespace = '', name = '' } = podSandboxStatus?.metadata ?? {};
    console.log([time, EVENTS[containerEventType], containerId, `${namespace}/${name}`].join(' '));
  }
}
