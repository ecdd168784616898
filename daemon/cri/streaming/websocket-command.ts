/** exec and attach over WebSocket. */
import type { WebSocket } from 'ws';
import { type Channels, runCommand } from './remote-command.ts';
import type { CommandSession, Targets } from './session.ts';
import { type Status, written } from './status.ts';
import { type Framing, WebSocketChannels } from './websocket-channels.ts';

interface Protocol extends Framing {
  readonly version: number;
}

/** By their names as subprotocols, the best first. A client that names none gets the first version. */
export const WEBSOCKET_COMMANDS: ReadonlyMap<string, Protocol> = new Map([
  ['v5.channel.k8s.io', { version: 5, isBase64: false, canEnd: true }],
  ['v4.channel.k8s.io', { version: 4, isBase64: false, canEnd: false }],
  ['v4.base64.channel.k8s.io', { version: 4, isBase64: true, canEnd: false }],
  ['channel.k8s.io', { version: 1, isBase64: false, canEnd: false }],
  ['base64.channel.k8s.io', { version: 1, isBase64: true, canEnd: false }],
]);
const UNNAMED: Protocol = { version: 1, isBase64: false, canEnd: false };

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const ERROR = 3;
const RESIZE = 4;

/** @param protocolName what was agreed upon; empty when the client named none */
export async function serveWebSocketCommand(
  session: CommandSession,
  protocolName: string,
  socket: WebSocket,
  targets: Targets,
): Promise<void> {
  const protocol = WEBSOCKET_COMMANDS.get(protocolName) ?? UNNAMED;
  const channels = new WebSocketChannels(socket, protocol);
  const { stdin, stdout, stderr, tty } = session;
  const sides: Channels = {
    stdin: stdin ? channels.input(STDIN) : undefined,
    stdout: stdout ? channels.output(STDOUT) : undefined,
    stderr: stderr ? channels.output(STDERR) : undefined,
    resize: tty ? channels.input(RESIZE) : undefined,
    gone: channels.gone,
    finish: (status) => finish(channels, status, protocol.version),
  };
  // Old clients wait for a message before they take the connection for one.
  channels.send(firstOf(session), Buffer.alloc(0));
  await runCommand(session, targets, sides);
}

function firstOf({ stdout, stderr }: CommandSession): number {
  if (stdout) return STDOUT;
  return stderr ? STDERR : ERROR;
}

async function finish(channels: WebSocketChannels, status: Status, version: number): Promise<void> {
  const text = written(status, version);
  if (text !== '') channels.send(ERROR, Buffer.from(text));
  await channels.close();
}
