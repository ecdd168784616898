/** How long a caller waits (gRPC over HTTP2, "Timeout"): at most eight digits and a unit. */

const MILLISECONDS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/** Longer than 24.8 days, Node's timers end at once. */
const LONGEST = 2 ** 31 - 1;

/** @returns milliseconds; undefined for a call that waits for ever, or says what nobody understands */
export function timeoutOf(header: string | undefined): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(header ?? '') ?? [];
  if (digits === undefined || unit === undefined) return undefined;
  const milliseconds = Number(digits) * MILLISECONDS[unit]!;
  return milliseconds > LONGEST ? undefined : Math.ceil(milliseconds);
}
