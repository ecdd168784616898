/** What a container has written, from the file that kubelet reads as well. */
import { once } from 'node:events';
import { type Command, InvalidArgumentError } from 'commander';
import type { KubernetesContainerStatus } from '../../client/client.ts';
import { parseDuration } from '../duration.ts';
import { Failure } from '../failure.ts';
import { type Session, withClient } from '../session.ts';
import { logLines, startOfLast } from './log-file.ts';
import { RUNNING, STATES, count } from './selection.ts';

interface LogFlags {
  readonly follow?: boolean;
  readonly previous?: boolean;
  readonly tail?: number;
  readonly since?: number;
  readonly timestamps?: boolean;
  readonly limitBytes?: number;
}

const CREATED = STATES.indexOf('Created');
/** When, which stream, whether the line goes on (`P`) or ends (`F`), and its text. */
const LINE = /^(\S+) (stdout|stderr) ([PF])\S* ?(.*)$/s;

export function addLogs(cri: Command): void {
  cri
    .command('logs')
    .description('print what a container has written')
    .argument('<container>')
    .option('-f, --follow', 'go on until the container ends')
    .option('-p, --previous', 'of the attempt before this one')
    .option('--tail <number>', 'no more than so many lines from the end', count)
    .option('--since <time>', 'what is not older: 10m, or 2026-01-02T13:23:37Z', moment)
    .option('-t, --timestamps', 'print when it was written')
    .option('--limit-bytes <number>', 'no more than so many bytes', count)
    .action((id: string, flags: LogFlags, command: Command) =>
      withClient(command, (session) => logs(session, id, flags)),
    );
}

async function logs(session: Session, id: string, flags: LogFlags): Promise<void> {
  const { client, call, sdk } = session;
  const { runtime } = client.kubernetes;
  const { status: named } = await runtime.containerStatus({ containerId: id }, call);
  const status = flags.previous === true ? await previous(session, named!) : named!;
  const { logPath, id: containerId } = status;
  if (logPath === '') throw new Failure(`container ${id} keeps no log`);
  const isOver = async (): Promise<boolean> => {
    try {
      const { status: now } = await runtime.containerStatus({ containerId }, call);
      return now?.state !== RUNNING && now?.state !== CREATED;
    } catch (error) {
      // It has been removed meanwhile.
      if (error instanceof sdk.RpcError && error.code === sdk.Code.NotFound) return true;
      throw error;
    }
  };
  const start = flags.tail === undefined ? 0 : await startOfLast(logPath, flags.tail);
  const follow = flags.follow === true ? { signal: call.signal, isOver } : undefined;
  await printAll(logLines(logPath, start, follow), flags);
}

/** @throws Failure when there was none, or kubelet has removed it */
async function previous(
  { client, call }: Session,
  status: KubernetesContainerStatus,
): Promise<KubernetesContainerStatus> {
  const { name = '', attempt = 0 } = status.metadata ?? {};
  const { runtime } = client.kubernetes;
  const { containers: own } = await runtime.listContainers({ filter: { id: status.id } }, call);
  const filter = { podSandboxId: own[0]?.podSandboxId ?? '' };
  const { containers } = await runtime.listContainers({ filter }, call);
  const found = containers.find(
    ({ metadata }) => metadata?.name === name && metadata.attempt === attempt - 1,
  );
  if (found === undefined) throw new Failure(`there is no attempt before ${attempt} of container ${name}`);
  return (await runtime.containerStatus({ containerId: found.id }, call)).status!;
}

async function printAll(lines: AsyncIterable<string>, flags: LogFlags): Promise<void> {
  const { since = -Infinity, timestamps = false, limitBytes = Infinity } = flags;
  /** Streams whose last line goes on. */
  const open = new Set<string>();
  let left = limitBytes;
  for await (const line of lines) {
    const [, time = '', stream, tag, text = ''] = LINE.exec(line) ?? [];
    if (stream === undefined || Date.parse(time) < since) continue;
    const prefix = timestamps && !open.has(stream) ? `${time} ` : '';
    if (tag === 'P') open.add(stream);
    else open.delete(stream);
    const bytes = Buffer.from(`${prefix}${text}${tag === 'P' ? '' : '\n'}`, 'latin1').subarray(0, left);
    left -= bytes.length;
    const output = stream === 'stdout' ? process.stdout : process.stderr;
    if (!output.write(bytes)) await once(output, 'drain');
    if (left <= 0) return;
  }
}

/** Milliseconds since 1970 of a time, or of so long ago. */
function moment(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const time = /^\d{4}-/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(time)) return time;
  try {
    return Date.now() - parseDuration(text);
  } catch {
    throw new InvalidArgumentError(
      'Give a duration such as 10m, a time such as 2026-01-02T13:23:37Z, or seconds since 1970.',
    );
  }
}
