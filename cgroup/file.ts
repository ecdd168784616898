import { readdirSync, readFileSync } from 'node:fs';

/** Largest unsigned number of 64 bits: no limit, as the metrics have it. */
export const UNLIMITED = 2n ** 64n - 1n;

/** A cgroup's file, or undefined when this kernel, or this cgroup, does not have it (any more). */
export function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // ENODEV: the cgroup was removed while its file was open. EOPNOTSUPP: swap accounting or pressure is off.
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'EOPNOTSUPP') return undefined;
    throw error;
  }
}

/**
 * The sizes of huge pages that a cgroup counts, `2MB` for example, by the names of its files; none when it is gone.
 *
 * @param file what is counted of each: `hugetlb.<size>.<file>`
 */
export function hugePageSizes(folder: string, file: string): string[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .filter((name) => name.startsWith('hugetlb.') && name.endsWith(`B.${file}`))
    .map((name) => name.slice('hugetlb.'.length, -file.length - 1));
}

/** A file that holds one number, or `max`; 0 without the file. Negative numbers count as 0. */
export function readNumber(path: string): bigint {
  return toNumber(read(path));
}

/** Lines of `key value`. */
export function parsePairs(text: string | undefined): (key: string) => bigint {
  const pairs = new Map<string, bigint>();
  for (const line of text?.split('\n') ?? []) {
    const [key, value] = line.split(/\s+/);
    if (key !== undefined && value !== undefined) pairs.set(key, toNumber(value));
  }
  return (key) => pairs.get(key) ?? 0n;
}

export function toNumber(text: string | undefined): bigint {
  const word = text?.trim() ?? '';
  if (word === 'max') return UNLIMITED;
  return /^\d+$/.test(word) ? BigInt(word) : 0n;
}

/** Lines of `device key=value …`, as rdma.current has them. */
export function parseDevices(text: string | undefined): { device: string; values: Map<string, bigint> }[] {
  const lines = text?.split('\n').filter((line) => line.includes('=')) ?? [];
  return lines.map((line) => {
    const [device = '', ...pairs] = line.trim().split(/\s+/);
    const values = new Map<string, bigint>();
    for (const pair of pairs) {
      const [key = '', value] = pair.split('=');
      values.set(key, toNumber(value));
    }
    return { device, values };
  });
}

/** RDMA counts are numbers of 32 bits; `max` is the largest. */
export function toRdma(
  text: string | undefined,
): { device: string; hcaHandles: number; hcaObjects: number }[] {
  const small = (value: bigint | undefined) => Number(value === UNLIMITED ? 2n ** 32n - 1n : (value ?? 0n));
  return parseDevices(text).map(({ device, values }) => ({
    device,
    hcaHandles: small(values.get('hca_handle')),
    hcaObjects: small(values.get('hca_object')),
  }));
}
