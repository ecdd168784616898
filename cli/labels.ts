/** `key=value` arguments. A key alone is worth `true`, as ctr has it. */
export function parseLabels(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => split(pair, 'true')));
}

/** Labels as one word, sorted. */
export function labelText(labels: { readonly [key: string]: string }): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .sort()
    .join(',');
}

export function split(pair: string, otherwise: string): [key: string, value: string] {
  const at = pair.indexOf('=');
  return at < 0 ? [pair, otherwise] : [pair.slice(0, at), pair.slice(at + 1)];
}

/** Gathers the values of an option that may be given several times. */
export function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}
