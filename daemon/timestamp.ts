/** Times as messages carry them. */
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';

let origin = performance.timeOrigin;

/**
 * The time of now in UTC, to the microsecond. Node tells wall-clock time in milliseconds only; what is finer comes from its
 * monotonic clock, which is set anew whenever the two part (a stepped clock, a suspended machine).
 */
export function timestampNow(): Timestamp {
  const wall = Date.now();
  let fine = origin + performance.now();
  if (Math.abs(wall - fine) > 2) {
    origin += wall - fine;
    fine = wall;
  }
  const micros = Math.round(fine * 1000);
  return { seconds: BigInt(Math.floor(micros / 1e6)), nanos: (micros % 1e6) * 1000 };
}
