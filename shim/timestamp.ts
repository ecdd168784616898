import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';

/** The present. The clock that JavaScript reads has milliseconds; the wire has nanoseconds. */
export function now(): Timestamp {
  return fromMilliseconds(Date.now());
}

export function fromMilliseconds(milliseconds: number): Timestamp {
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds: BigInt(seconds), nanos: (milliseconds - seconds * 1000) * 1_000_000 };
}

/** RFC 3339 in UTC with nanoseconds: `2026-01-02T03:04:05.678000000Z`. */
export function toRfc3339(time: Timestamp): string {
  const whole = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(time.nanos).padStart(9, '0')}Z`;
}

/** @throws RangeError for what `toRfc3339` would not have written */
export function fromRfc3339(text: string): Timestamp {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z$/.exec(text);
  if (match === null) throw new RangeError(`not a time in UTC with nanoseconds: ${text}`);
  return { seconds: BigInt(Date.parse(`${match[1]}Z`) / 1000), nanos: Number(match[2]) };
}
