/**
 * Port forwarding over WebSocket, in its two forms: kubectl's of today carries SPDY in the messages, as if they were a wire; the old one
 * has two channels, data and errors, for each of the ports that the request names.
 */
import { Duplex, type Readable, type Writable } from 'node:stream';
import type { WebSocket } from 'ws';
import { forward } from './port-forward.ts';
import { serveSpdyForward } from './spdy-forward.ts';
import type { PortForwardSession, Targets } from './session.ts';
import { type Framing, WebSocketChannels } from './websocket-channels.ts';

/** Subprotocols that carry SPDY. */
const TUNNELS: ReadonlySet<string> = new Set(['SPDY/3.1+portforward.k8s.io', 'v2.portforward.k8s.io']);
const CHANNELS: ReadonlyMap<string, Framing> = new Map([
  // Kubernetes has it for commands alone. Here it lets a client of Moor's own end what it sends and go on receiving.
  ['v5.channel.k8s.io', { isBase64: false, canEnd: true }],
  ['v4.channel.k8s.io', { isBase64: false, canEnd: false }],
  ['v4.base64.channel.k8s.io', { isBase64: true, canEnd: false }],
]);

/** What a client may ask for, the best first. */
export const WEBSOCKET_FORWARDS = [...TUNNELS, ...CHANNELS.keys()];

/** @param protocol what was agreed upon; empty when the client named none */
export async function serveWebSocketForward(
  session: PortForwardSession,
  protocol: string,
  socket: WebSocket,
  targets: Targets,
): Promise<void> {
  if (TUNNELS.has(protocol)) {
    const { createWebSocketStream } = await import('ws');
    return serveSpdyForward(session, createWebSocketStream(socket), targets);
  }
  const framing = CHANNELS.get(protocol) ?? { isBase64: false, canEnd: false };
  const channels = new WebSocketChannels(socket, framing);
  await Promise.all(session.ports.map((port, index) => serve(session, port, index * 2, channels, targets)));
  await channels.close();
}

async function serve(
  session: PortForwardSession,
  port: number,
  channel: number,
  channels: WebSocketChannels,
  targets: Targets,
): Promise<void> {
  const number = Buffer.alloc(2);
  number.writeUInt16LE(port);
  channels.send(channel, number);
  channels.send(channel + 1, number);
  const data = both(channels.input(channel), channels.output(channel));
  // Its end without one of the other side is how clients of this form leave.
  data.on('error', () => undefined);
  await forward(session, port, { data, error: channels.output(channel + 1) }, targets, channels.gone);
}

/** Two directions as one stream. */
function both(readable: Readable, writable: Writable): Duplex {
  // The types know of web streams alone here; Node takes its own as well.
  return Duplex.from({ readable, writable } as unknown as AsyncIterable<Buffer>);
}
