/** exec and attach over SPDY/3.1: a stream for each of the process's own, one for sizes, one for how it ended. */
import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';
import { deadlineExceeded } from '../../../ttrpc/errors.ts';
import { type Channels, runCommand } from './remote-command.ts';
import type { CommandSession, Targets } from './session.ts';
import { SpdyConnection } from './spdy/connection.ts';
import type { SpdyStream } from './spdy/stream.ts';
import { type Status, written } from './status.ts';

/** What a client may say it speaks in X-Stream-Protocol-Version, the best first. */
export const COMMAND_PROTOCOLS = [
  'v4.channel.k8s.io',
  'v3.channel.k8s.io',
  'v2.channel.k8s.io',
  'channel.k8s.io',
];

/** For a client to open all its streams. */
const CREATION_TIMEOUT_MS = 30_000;

export async function serveSpdyCommand(
  session: CommandSession,
  protocol: string,
  transport: Duplex,
  targets: Targets,
): Promise<void> {
  const version = Number(/^v(\d)/.exec(protocol)?.[1] ?? '1');
  const meeting = new Meeting(wantedTypes(session, version));
  const connection = new SpdyConnection(transport, (stream) => meeting.arrive(stream));
  const gone = new AbortController();
  void connection.closed.then(() => gone.abort());
  const timer = setTimeout(() => connection.destroy(), CREATION_TIMEOUT_MS);
  try {
    await Promise.race([meeting.complete, connection.closed]);
  } finally {
    clearTimeout(timer);
  }
  if (gone.signal.aborted) throw deadlineExceeded('the client did not open the streams that it asked for');
  await runCommand(session, targets, channelsOf(meeting.streams, version, gone.signal));
  connection.close();
  await connection.closed;
}

function wantedTypes({ stdin, stdout, stderr, tty }: CommandSession, version: number): Set<string> {
  const types = new Set(['error']);
  if (stdin) types.add('stdin');
  if (stdout) types.add('stdout');
  if (stderr) types.add('stderr');
  // The first two versions have no word for sizes.
  if (tty && version >= 3) types.add('resize');
  return types;
}

/** Where the streams of a client come together. */
class Meeting {
  readonly streams = new Map<string, SpdyStream>();
  readonly #wanted: ReadonlySet<string>;
  readonly #complete = Promise.withResolvers<void>();

  constructor(wanted: ReadonlySet<string>) {
    this.#wanted = wanted;
  }

  get complete(): Promise<void> {
    return this.#complete.promise;
  }

  arrive(stream: SpdyStream): void {
    const type = stream.headers.get('streamtype') ?? '';
    if (!this.#wanted.has(type) || this.streams.has(type)) return stream.refuse();
    this.streams.set(type, stream);
    stream.reply();
    if (this.streams.size === this.#wanted.size) this.#complete.resolve();
  }
}

function channelsOf(streams: ReadonlyMap<string, SpdyStream>, version: number, gone: AbortSignal): Channels {
  const output = (type: string): SpdyStream | undefined => {
    const stream = streams.get(type);
    // Nothing is to come from there.
    stream?.resume();
    return stream;
  };
  const error = output('error')!;
  return {
    stdin: streams.get('stdin'),
    stdout: output('stdout'),
    stderr: output('stderr'),
    resize: streams.get('resize'),
    gone,
    async finish(status: Status): Promise<void> {
      error.end(written(status, version));
      await finished(error, { readable: false }).catch(() => undefined);
    },
  };
}
