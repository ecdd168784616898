/** `[metrics]`, with containerd's keys. */
import { type Kind, expected, flag, table } from '../schema.ts';

/** Where to listen: a host (none for all addresses), IPv6 in brackets, and a port. */
export interface ListenAddress {
  readonly host: string | undefined;
  readonly port: number;
}

/** @returns undefined for what is no address */
export function parseAddress(text: string): ListenAddress | undefined {
  const [, bracketed, bare = '', digits = ''] =
    /^(?:\[([\da-fA-F:.%\w]+)\]|([^:[\]\s/]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === '' || port > 65_535) return undefined;
  return { host: (bracketed ?? bare) || undefined, port };
}

const address: Kind<string> = {
  read(value = '', path) {
    if (typeof value !== 'string' || (value !== '' && parseAddress(value) === undefined)) {
      throw expected('HOST:PORT, such as "127.0.0.1:1338"', value, path);
    }
    return value;
  },
};

export const metricsSettings = table({
  /** Where Prometheus finds `/v1/metrics`, by plain HTTP; empty for nowhere. */
  address,
  grpc_histogram: flag(false),
});

export type MetricsSettings = ReturnType<typeof metricsSettings.read>;
