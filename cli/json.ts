/** JSON as Go's programs write protobuf messages, for scripts that were written for ctr. */

interface Time {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** RFC 3339 with as many digits as there are, as Go has it. */
export function rfc3339(time: Time | undefined): string {
  const { seconds, nanos } = time ?? { seconds: -62_135_596_800n, nanos: 0 };
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return `${whole}${fraction(nanos)}Z`;
}

/** How Go prints a time: `2006-01-02 15:04:05.999999999 +0000 UTC`. */
export function goTime(time: Time | undefined): string {
  return rfc3339(time).replace('T', ' ').replace(/Z$/, ' +0000 UTC');
}

function fraction(nanos: number): string {
  return nanos === 0 ? '' : `.${String(nanos).padStart(9, '0').replace(/0+$/, '')}`;
}

/** A message with the field names of its .proto file and without the fields that have their default. */
export function goMessage(message: object): object {
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(message) as [string, unknown][]) {
    const converted = goValue(value);
    if (converted !== undefined) fields[snakeCase(name)] = converted;
  }
  return fields;
}

/** Digits as they are: a number of JavaScript's would lose some. Not yet in TypeScript's library. */
export const rawJson = (digits: string): unknown =>
  (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(digits);

function goValue(value: unknown): unknown {
  switch (typeof value) {
    case 'bigint':
      return value === 0n ? undefined : rawJson(String(value));
    case 'number':
      return value === 0 ? undefined : value;
    case 'boolean':
      return value || undefined;
    case 'string':
      return value === '' ? undefined : value;
    case 'object':
      return value === null ? undefined : goObject(value);
    case 'undefined':
    case 'function':
    case 'symbol':
    default:
      return undefined;
  }
}

function goObject(value: object): unknown {
  if (value instanceof Uint8Array)
    return value.length === 0 ? undefined : Buffer.from(value).toString('base64');
  if (Array.isArray(value)) return value.length === 0 ? undefined : value.map(goElement);
  if (isTime(value)) return rfc3339(value);
  return goMessage(value);
}

function goElement(value: unknown): unknown {
  return goValue(value) ?? (typeof value === 'bigint' ? 0 : value);
}

function isTime(value: object): value is Time {
  return 'seconds' in value && typeof value.seconds === 'bigint' && 'nanos' in value;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
