/** Labels of a record. */
export interface Labels {
  readonly [key: string]: string;
}

/** Old labels with changes. An empty value removes a label: labels are never stored empty. */
export function set(old: Labels, changes: Labels): { [key: string]: string } {
  // Built by definition rather than by assignment, so that a label named `__proto__` is a label.
  return Object.fromEntries(Object.entries({ ...old, ...changes }).filter(([, value]) => value !== ''));
}

interface Entries<T> {
  readonly [key: string]: T;
}

/** One entry of a map taken over from another by a path (`labels.KEY`), and removed when that has none. */
export function withEntry<T>(old: Entries<T>, from: Entries<T>, path: string): { [key: string]: T } {
  const key = path.slice(path.indexOf('.') + 1);
  const rest = Object.entries(old).filter(([name]) => name !== key);
  return Object.fromEntries(Object.hasOwn(from, key) ? [...rest, [key, from[key]!]] : rest);
}
