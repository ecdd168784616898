import type { Command } from 'commander';
import type { PodSandbox } from '../client/client.ts';
import { goMessage } from './json.ts';
import { type Session, withClient } from './session.ts';
import { roughAge } from './size.ts';
import { type FormatOptions, formatOption, print, printJson, printListing } from './table.ts';

interface ListFlags extends FormatOptions {
  readonly quiet?: boolean;
}

const NANOSECONDS_A_MILLISECOND = 1_000_000n;
/** Of an id, as crictl shows it. */
export const SHORT_ID = 13;

export function addPods(program: Command): void {
  const pods = program.command('pods').alias('pod').description('pods of Kubernetes on this node');
  pods
    .command('list')
    .alias('ls')
    .description('list pods')
    .option('-q, --quiet', 'print only the ids')
    .addOption(formatOption())
    .action((flags: ListFlags, command: Command) => withClient(command, (session) => list(session, flags)));
  pods
    .command('inspect')
    .description('show all that is known of a pod')
    .argument('<pod>', 'its id, or as much of it as no other begins with')
    .action((podSandboxId: string, _flags: object, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const answer = await client.kubernetes.runtime.podSandboxStatus(
          { podSandboxId, verbose: true },
          call,
        );
        printStatus(answer);
      }),
    );
  forEach(pods, 'stop', 'stop pods and all that runs in them', (session, podSandboxId) =>
    session.client.kubernetes.runtime.stopPodSandbox({ podSandboxId }, session.call),
  );
  forEach(pods, 'remove', 'remove pods with all that is in them', (session, podSandboxId) =>
    session.client.kubernetes.runtime.removePodSandbox({ podSandboxId }, session.call),
  ).alias('rm');
}

/** Kubelet takes what is not there for done, and so says nothing; a person has mistyped it. */
function forEach(
  pods: Command,
  name: string,
  description: string,
  act: (session: Session, id: string) => Promise<unknown>,
): Command {
  return pods
    .command(name)
    .description(description)
    .argument('<pod...>')
    .action((ids: string[], _flags: object, command: Command) =>
      withClient(command, async (session) => {
        const { client, call } = session;
        for (const id of ids) {
          await client.kubernetes.runtime.podSandboxStatus({ podSandboxId: id }, call);
          await act(session, id);
          console.log(id);
        }
      }),
    );
}

async function list(session: Session, flags: ListFlags): Promise<void> {
  const { items } = await session.client.kubernetes.runtime.listPodSandbox({}, session.call);
  const newest = items.toSorted((a, b) => Number(b.createdAt - a.createdAt));
  await listPods(session, newest, flags);
}

/** Prints pods in the order that they have. */
export async function listPods(
  { sdk }: Pick<Session, 'sdk'>,
  pods: readonly PodSandbox[],
  flags: ListFlags,
): Promise<void> {
  if (flags.quiet === true) return print(pods.map(({ id }) => id));
  const stateOf = ({ state }: PodSandbox): string =>
    state === sdk.PodSandboxState.SANDBOX_READY ? 'Ready' : 'NotReady';
  await printListing(
    {
      header: ['POD', 'CREATED', 'STATE', 'NAME', 'NAMESPACE', 'ATTEMPT', 'RUNTIME'],
      rows: pods.map((pod) => [
        pod.id.slice(0, SHORT_ID),
        ageOf(pod.createdAt),
        stateOf(pod),
        pod.metadata?.name ?? '',
        pod.metadata?.namespace ?? '',
        String(pod.metadata?.attempt ?? 0),
        pod.runtimeHandler || '(default)',
      ]),
      json: pods.map(goMessage),
    },
    flags,
  );
}

/** @param since nanoseconds since 1970 */
export function ageOf(since: bigint): string {
  return `${roughAge(Math.max(0, Date.now() - Number(since / NANOSECONDS_A_MILLISECOND)))} ago`;
}

/** An answer with what is in its `info`. */
interface VerboseAnswer {
  readonly info: { readonly [key: string]: string };
}

export function printStatus(answer: VerboseAnswer): void {
  printJson(statusObject(answer));
}

/** The answer of a verbose status: what is in its `info` is mostly JSON in itself, under the key `info` for what there is one of. */
export function statusObject(answer: VerboseAnswer & { readonly status?: object }): object {
  const { info, ...rest } = answer;
  const { info: main = {}, ...others } = Object.fromEntries(
    Object.entries(info).map(([key, text]) => [key, unpacked(text)]),
  );
  const unpackedInfo = Object.assign({}, main, others) as object;
  return { ...goMessage(rest), info: unpackedInfo };
}

function unpacked(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
