/** Port forwarding over SPDY/3.1: for each connection a stream of data and one of errors, which tell by their headers that they belong together. */
import type { Duplex } from 'node:stream';
import { forward } from './port-forward.ts';
import type { PortForwardSession, Targets } from './session.ts';
import { SpdyConnection } from './spdy/connection.ts';
import type { SpdyStream } from './spdy/stream.ts';

export const FORWARD_PROTOCOL = 'portforward.k8s.io';

/** For the second stream of a pair. */
const PAIR_TIMEOUT_MS = 30_000;

export async function serveSpdyForward(
  session: PortForwardSession,
  transport: Duplex,
  targets: Targets,
): Promise<void> {
  const gone = new AbortController();
  const pairs = new Pairs(({ data, error, port }) => {
    void forward(session, port, { data, error }, targets, gone.signal);
  });
  const connection = new SpdyConnection(transport, (stream) => pairs.arrive(stream));
  await connection.closed;
  gone.abort();
  pairs.clear();
}

interface Pair {
  readonly port: number;
  readonly data: SpdyStream;
  readonly error: SpdyStream;
}

interface Half {
  readonly type: 'data' | 'error';
  readonly port: number;
  readonly stream: SpdyStream;
  readonly timer: NodeJS.Timeout;
}

/** Streams that wait for their other half. */
class Pairs {
  readonly #whole: (pair: Pair) => void;
  readonly #halves = new Map<string, Half>();

  constructor(whole: (pair: Pair) => void) {
    this.#whole = whole;
  }

  arrive(stream: SpdyStream): void {
    const type = stream.headers.get('streamtype');
    const port = Number(/^\d{1,5}$/.exec(stream.headers.get('port') ?? '')?.[0] ?? 0);
    if ((type !== 'data' && type !== 'error') || port < 1 || port > 65_535) return stream.refuse();
    const request = requestOf(stream, type);
    const other = this.#halves.get(request);
    if (other?.type === type) return stream.refuse();
    stream.reply();
    // Nobody sends errors to here.
    if (type === 'error') stream.resume();
    if (other === undefined) return this.#wait(request, { type, port, stream });
    clearTimeout(other.timer);
    this.#halves.delete(request);
    const [data, error] = type === 'data' ? [stream, other.stream] : [other.stream, stream];
    this.#whole({ port: type === 'data' ? port : other.port, data, error });
  }

  clear(): void {
    for (const { timer } of this.#halves.values()) clearTimeout(timer);
    this.#halves.clear();
  }

  #wait(request: string, half: Omit<Half, 'timer'>): void {
    const expire = (): void => {
      this.#halves.delete(request);
      half.stream.destroy(new Error('the other stream of its pair did not come'));
    };
    this.#halves.set(request, { ...half, timer: setTimeout(expire, PAIR_TIMEOUT_MS).unref() });
  }
}

/** Clients of old do not number their requests, but open the data stream right after the error stream. */
function requestOf(stream: SpdyStream, type: 'data' | 'error'): string {
  const request = stream.headers.get('requestid');
  if (request !== undefined && request !== '') return request;
  return `#${type === 'error' ? stream.id : stream.id - 2}`;
}
