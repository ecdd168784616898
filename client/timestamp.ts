import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';

/** A protobuf timestamp as a Date, which keeps milliseconds; undefined for one that was never set. */
export function dateOf(timestamp: Timestamp | undefined): Date | undefined {
  if (timestamp === undefined) return undefined;
  const { seconds, nanos } = timestamp;
  if (seconds <= YEAR_ONE) return undefined;
  return new Date(Number(seconds) * 1000 + Math.floor(nanos / 1e6));
}

/** Go's zero time, 0001-01-01T00:00:00Z, which its programs send for "never". */
const YEAR_ONE = -62_135_596_800n;
