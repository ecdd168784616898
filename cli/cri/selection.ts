/** Which containers a command is about: crictl's filters. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ContainerState, KubernetesContainer } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { collect, parseLabels } from '../labels.ts';
import type { Session } from '../session.ts';
import { type FormatOptions, formatOption, printJson, printYaml } from '../table.ts';

/** The states of containers as the API numbers them. */
export const STATES = ['Created', 'Running', 'Exited', 'Unknown'];
export const RUNNING = STATES.indexOf('Running');
/** Labels that kubelet gives to containers. */
export const POD_NAME = 'io.kubernetes.pod.name';
export const POD_NAMESPACE = 'io.kubernetes.pod.namespace';

export interface Selection {
  readonly id?: string;
  readonly name?: RegExp;
  readonly namespace?: RegExp;
  readonly pod?: string;
  readonly image?: string;
  readonly state?: string;
  readonly label?: readonly string[];
  readonly latest?: boolean;
  readonly last?: number;
  readonly all?: boolean;
}

export interface OutputFlags extends FormatOptions {
  readonly output?: 'table' | 'json' | 'yaml';
}

/** `--format` as everywhere here, and `-o` as crictl has it. */
export function addOutputFlags(command: Command): Command {
  return command
    .addOption(formatOption())
    .addOption(new Option('-o, --output <format>', 'as crictl has it').choices(['table', 'json', 'yaml']));
}

export function formatOf({ format, output }: OutputFlags): FormatOptions {
  if (output === undefined) return { format };
  return { format: output === 'table' ? 'columns' : output };
}

export interface ObjectFlags {
  readonly output?: 'json' | 'yaml';
}

/** How what has no columns is printed. */
export function addObjectFlags(command: Command): Command {
  return command.addOption(
    new Option('-o, --output <format>', 'as crictl has it (default: json)').choices(['json', 'yaml']),
  );
}

export async function printObject(value: unknown, { output }: ObjectFlags): Promise<void> {
  if (output === 'yaml') await printYaml(value);
  else printJson(value);
}

export function addSelectionFlags(command: Command): Command {
  return command
    .option('--id <id>', 'one container')
    .option('--name <pattern>', 'those with such a name: a regular expression', pattern)
    .option('--namespace <pattern>', 'those of pods in such a namespace: a regular expression', pattern)
    .option('-p, --pod <pod>', 'those of one pod')
    .option('--image <image>', 'those of one image')
    .addOption(
      new Option('-s, --state <state>', 'those in one state').choices(
        STATES.map((state) => state.toLowerCase()),
      ),
    )
    .option('--label <key=value>', 'those with a label (repeatable)', collect)
    .option('-l, --latest', 'the newest one, whatever its state')
    .option('-n, --last <number>', 'the newest ones, whatever their states', count);
}

/** The newest first. Those that run, unless a state is asked for. */
export async function selected({ client, call }: Session, flags: Selection): Promise<KubernetesContainer[]> {
  const { id = '', pod: podSandboxId = '', state, label = [], name, namespace, image } = flags;
  const last = flags.latest === true ? 1 : flags.last;
  const wanted = state ?? (flags.all === true || last !== undefined ? undefined : 'running');
  const number = STATES.findIndex((each) => each.toLowerCase() === wanted) as ContainerState | -1;
  const filter = {
    id,
    podSandboxId,
    labelSelector: parseLabels(label),
    ...(number !== -1 && { state: { state: number } }),
  };
  const { containers } = await client.kubernetes.runtime.listContainers({ filter }, call);
  const ofImage = image === undefined ? undefined : await imageId({ client, call }, image);
  const found = containers
    .filter(({ metadata }) => name?.test(metadata?.name ?? '') ?? true)
    .filter(({ labels }) => namespace?.test(labels[POD_NAMESPACE] ?? '') ?? true)
    .filter(({ imageId }) => ofImage === undefined || imageId === ofImage)
    .toSorted((a, b) => Number(b.createdAt - a.createdAt));
  return found.slice(0, last === undefined || last === 0 ? found.length : last);
}

/** @throws Failure for an image that is not there */
export async function imageId(
  { client, call }: Pick<Session, 'client' | 'call'>,
  name: string,
): Promise<string> {
  const { image } = await client.kubernetes.images.imageStatus({ image: { image: name } }, call);
  if (image === undefined)
    throw new Failure(`image ${name}: not found`, 'see what is there: moor cri images');
  return image.id;
}

export function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

export function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give a number.');
  return Number(text);
}
