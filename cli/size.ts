/** Sizes and ages as ctr prints them. */

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const DECIMAL = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** `12.3 MiB`, with powers of 1024: images, snapshots, progress. */
export function binarySize(bytes: number): string {
  const [value, unit] = scaled(bytes, 1024, BINARY);
  return `${value.toFixed(1)} ${unit}`;
}

/** `12.35MB`, with powers of 1000 and four digits: content. */
export function decimalSize(bytes: number): string {
  const [value, unit] = scaled(bytes, 1000, DECIMAL);
  return `${Number(value.toPrecision(4))}${unit}`;
}

function scaled(bytes: number, base: number, units: readonly string[]): [value: number, unit: string] {
  let value = bytes;
  let power = 0;
  for (; value >= base && power < units.length - 1; power += 1) value /= base;
  return [value, units[power]!];
}

/** `3 hours`, in one unit. @param milliseconds not less than 0 */
export function roughAge(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(seconds / 3600 + 0.5);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  const days = Math.floor(hours / 24);
  if (days < 14) return `${days} days`;
  if (days < 60) return `${Math.floor(days / 7)} weeks`;
  if (days < 730) return `${Math.floor(days / 30)} months`;
  return `${Math.floor(days / 365)} years`;
}

/** `2.3 s`, `4 min 05 s`. */
export function elapsed(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, '0')} s`;
}
