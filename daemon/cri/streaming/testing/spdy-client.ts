/**
 * A client of SPDY/3.1 as kubectl is one, for tests. Nothing of the server's own codec is in it, so that a mistake there is not made
 * twice: headers go through zlib's streams, frames are written by hand.
 */
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { request as secureRequest } from 'node:https';
import type { Socket } from 'node:net';
import { type Deflate, type Inflate, constants, createDeflate, createInflate } from 'node:zlib';
import { DICTIONARY } from '../spdy/dictionary.ts';

export interface ClientStream {
  readonly id: number;
  /** Resolves with the first answer: true for a reply, false for a reset. */
  readonly accepted: Promise<boolean>;
  /** Everything that came until the stream's end, or its reset. */
  readonly output: Promise<string>;
  /** Resolves when so much has come. */
  received(text: string): Promise<void>;
  write(bytes: string | Buffer, fin?: boolean): void;
  end(): void;
  reset(): void;
}

class Incoming {
  text = '';
  readonly accepted = Promise.withResolvers<boolean>();
  readonly ended = Promise.withResolvers<string>();
  readonly waiting: { readonly text: string; readonly resolve: () => void }[] = [];

  append(bytes: Buffer): void {
    this.text += bytes.toString('latin1');
    for (const { text, resolve } of this.waiting) if (this.text.includes(text)) resolve();
  }
}

/** Asks for an upgrade, by POST as kubectl does; any certificate is good enough. @returns the answer, and the socket when it was 101 */
export async function upgrade(
  url: string,
  headers: Record<string, string | string[]>,
): Promise<{
  readonly response: IncomingMessage;
  readonly socket: Socket | undefined;
  readonly body: string;
}> {
  const ask = url.startsWith('https:') ? secureRequest : request;
  const call = ask(url, {
    rejectUnauthorized: false,
    method: headers['sec-websocket-key'] === undefined ? 'POST' : 'GET',
    headers: { connection: 'Upgrade', ...headers },
  });
  call.end();
  const answer = Promise.withResolvers<[IncomingMessage, Socket | undefined]>();
  call.once('upgrade', (response, socket) => answer.resolve([response, socket]));
  call.once('response', (response) => answer.resolve([response, undefined]));
  call.once('error', (error) => answer.reject(error));
  const [response, socket] = await answer.promise;
  let body = '';
  if (socket === undefined) for await (const chunk of response) body += String(chunk);
  return { response, socket, body };
}

export class SpdyClient {
  readonly socket: Socket;
  readonly pings: number[] = [];
  readonly goneAway = Promise.withResolvers<number>();
  readonly closed: Promise<unknown>;
  readonly #deflate: Deflate = createDeflate({ dictionary: DICTIONARY });
  readonly #inflate: Inflate = createInflate({ dictionary: DICTIONARY });
  readonly #streams = new Map<number, Incoming>();
  #held: Buffer = Buffer.alloc(0);
  #nextId = 1;
  /** Bytes that the server has said it took, by stream. */
  readonly taken = new Map<number, number>();

  constructor(socket: Socket) {
    this.socket = socket;
    // One stream of compressed headers: a reply that cannot be inflated ends the connection, as it does in Go.
    this.#inflate.once('error', () => this.socket.destroy()).resume();
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => undefined);
    this.closed = once(socket, 'close').then(() => {
      for (const { accepted, ended, text } of this.#streams.values()) {
        accepted.resolve(false);
        ended.resolve(text);
      }
      this.goneAway.resolve(-1);
    });
  }

  static async connect(url: string, ...protocols: string[]): Promise<SpdyClient> {
    const { response, socket, body } = await upgrade(url, {
      upgrade: 'SPDY/3.1',
      'x-stream-protocol-version': protocols,
    });
    if (socket === undefined) throw new Error(`${response.statusCode}: ${body}`);
    return new SpdyClient(socket);
  }

  async open(headers: Record<string, string>): Promise<ClientStream> {
    const id = this.#nextId;
    this.#nextId += 2;
    return this.openAs(id, headers);
  }

  async openAs(id: number, headers: Record<string, string>): Promise<ClientStream> {
    const incoming = new Incoming();
    this.#streams.set(id, incoming);
    const head = Buffer.alloc(10);
    head.writeUInt32BE(id);
    this.frame(1, 0, Buffer.concat([head, await this.#compressed(headers)]));
    return {
      id,
      accepted: incoming.accepted.promise,
      output: incoming.ended.promise,
      received: (text) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        incoming.waiting.push({ text, resolve });
        incoming.append(Buffer.alloc(0));
        return promise;
      },
      write: (bytes, fin = false) => this.data(id, Buffer.from(bytes as string), fin),
      end: () => this.data(id, Buffer.alloc(0), true),
      reset: () => this.frame(3, 0, words(id, 5)),
    };
  }

  frame(type: number, flags: number, body: Buffer): void {
    const head = Buffer.from([0x80, 3, 0, type, flags, 0, 0, 0]);
    head.writeUIntBE(body.length, 5, 3);
    this.socket.write(Buffer.concat([head, body]));
  }

  data(id: number, bytes: Buffer, fin: boolean): void {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id);
    head[4] = fin ? 1 : 0;
    head.writeUIntBE(bytes.length, 5, 3);
    this.socket.write(Buffer.concat([head, bytes]));
  }

  async #compressed(headers: Record<string, string>): Promise<Buffer> {
    const pairs = Object.entries(headers);
    const parts = [words(pairs.length)];
    for (const text of pairs.flat()) parts.push(words(Buffer.byteLength(text)), Buffer.from(text));
    const out: Buffer[] = [];
    const collect = (chunk: Buffer): void => void out.push(chunk);
    this.#deflate.on('data', collect);
    this.#deflate.write(Buffer.concat(parts));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#deflate.flush(constants.Z_SYNC_FLUSH, resolve);
    await promise;
    this.#deflate.off('data', collect);
    return Buffer.concat(out);
  }

  #read(chunk: Buffer): void {
    this.#held = Buffer.concat([this.#held, chunk]);
    while (this.#held.length >= 8) {
      const length = this.#held.readUIntBE(5, 3);
      if (this.#held.length < 8 + length) return;
      const first = this.#held.readUInt32BE(0);
      const flags = this.#held[4]!;
      const body = this.#held.subarray(8, 8 + length);
      this.#held = this.#held.subarray(8 + length);
      if (first < 0x8000_0000) this.#data(first, body, (flags & 1) === 1);
      else this.#control(first & 0xffff, body);
    }
  }

  #data(id: number, bytes: Buffer, fin: boolean): void {
    const stream = this.#streams.get(id);
    stream?.append(bytes);
    if (fin) stream?.ended.resolve(stream.text);
  }

  #control(type: number, body: Buffer): void {
    const id = body.readUInt32BE(0);
    const stream = this.#streams.get(id);
    if (type === 2) {
      this.#inflate.write(body.subarray(4));
      stream?.accepted.resolve(true);
    } else if (type === 3) {
      stream?.accepted.resolve(false);
      stream?.ended.resolve(stream.text);
    } else if (type === 6) this.pings.push(id);
    else if (type === 7) this.goneAway.resolve(body.readUInt32BE(4));
    else if (type === 9) this.taken.set(id, (this.taken.get(id) ?? 0) + body.readUInt32BE(4));
  }
}

/** Numbers as they are on the wire. */
export function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}
