/** Counts of gRPC calls, under the names that go-grpc-prometheus gave them and dashboards know. */
import { Code } from '../../ttrpc/errors.ts';
import type { CallObserver, ObservedCall, ObservedMethod } from '../grpc/observer.ts';
import type { Family, Labels, Sample } from './exposition.ts';

/** Upper bounds of the buckets, in seconds: Prometheus' usual ones. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** As Go spells them. */
const codeNames = new Map<number, string>([
  ...Object.entries(Code).map(([name, code]) => [code, name] as const),
  [Code.Ok, 'OK'],
  [Code.Cancelled, 'Canceled'],
]);

interface Count {
  readonly labels: Labels;
  started: number;
  received: number;
  sent: number;
  readonly handled: Map<Code, number>;
  /** Calls by bucket, each once; the last is for those beyond all bounds. */
  readonly buckets: number[];
  seconds: number;
}

export class CallCounts implements CallObserver {
  readonly #histogram: boolean;
  readonly #counts = new Map<string, Count>();

  /** @param histogram measure how long calls take, too, which makes many lines */
  constructor(histogram: boolean) {
    this.#histogram = histogram;
  }

  started(method: ObservedMethod): ObservedCall {
    const count = this.#count(method);
    count.started += 1;
    const begin = this.#histogram ? performance.now() : 0;
    return {
      received: () => void (count.received += 1),
      sent: () => void (count.sent += 1),
      handled: (code) => {
        count.handled.set(code, (count.handled.get(code) ?? 0) + 1);
        if (this.#histogram) observe(count, (performance.now() - begin) / 1000);
      },
    };
  }

  families(): Family[] {
    const counts = [...this.#counts.values()];
    const all = (value: (count: Count) => number): Sample[] =>
      counts.map((count) => ({ labels: count.labels, value: value(count) }));
    return [
      {
        name: 'grpc_server_started_total',
        help: 'Total number of RPCs started on the server.',
        type: 'counter',
        samples: all(({ started }) => started),
      },
      {
        name: 'grpc_server_handled_total',
        help: 'Total number of RPCs completed on the server, regardless of success or failure.',
        type: 'counter',
        samples: counts.flatMap(({ labels, handled }) =>
          [...handled].map(([code, value]) => ({
            labels: { grpc_code: codeNames.get(code) ?? String(code), ...labels },
            value,
          })),
        ),
      },
      {
        name: 'grpc_server_msg_received_total',
        help: 'Total number of RPC stream messages received on the server.',
        type: 'counter',
        samples: all(({ received }) => received),
      },
      {
        name: 'grpc_server_msg_sent_total',
        help: 'Total number of gRPC stream messages sent by the server.',
        type: 'counter',
        samples: all(({ sent }) => sent),
      },
      {
        name: 'grpc_server_handling_seconds',
        help: 'Time that calls took until they were answered.',
        type: 'histogram',
        samples: this.#histogram ? counts.flatMap(histogramOf) : [],
      },
    ];
  }

  #count({ path, requestStream, responseStream }: ObservedMethod): Count {
    const known = this.#counts.get(path);
    if (known !== undefined) return known;
    const [, service = '', method = ''] = path.split('/');
    const count: Count = {
      labels: {
        grpc_method: method,
        grpc_service: service,
        grpc_type: typeOf(requestStream, responseStream),
      },
      started: 0,
      received: 0,
      sent: 0,
      handled: new Map(),
      buckets: Array.from({ length: BUCKETS.length + 1 }, () => 0),
      seconds: 0,
    };
    this.#counts.set(path, count);
    return count;
  }
}

function typeOf(requestStream: boolean, responseStream: boolean): string {
  if (requestStream) return responseStream ? 'bidi_stream' : 'client_stream';
  return responseStream ? 'server_stream' : 'unary';
}

function observe(count: Count, seconds: number): void {
  const bucket = BUCKETS.findIndex((bound) => seconds <= bound);
  count.buckets[bucket === -1 ? BUCKETS.length : bucket]! += 1;
  count.seconds += seconds;
}

function histogramOf({ labels, buckets, seconds }: Count): Sample[] {
  let sum = 0;
  const samples: Sample[] = [...BUCKETS, Infinity].map((bound, index) => {
    sum += buckets[index]!;
    return {
      suffix: '_bucket',
      labels: { ...labels, le: bound === Infinity ? '+Inf' : String(bound) },
      value: sum,
    };
  });
  return [...samples, { suffix: '_sum', labels, value: seconds }, { suffix: '_count', labels, value: sum }];
}
