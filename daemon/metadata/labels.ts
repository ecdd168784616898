/** Labels of a record. */
export interface Labels {
  readonly [key: string]: string;
}

/** Old labels with changes. An empty value removes a label: labels are never stored empty. */
export function set(old: Labels, changes: Labels): { [key: string]: string } {
  // Built by definition rather than by assignment, so that a label named `__proto__` is a label.
  return Object.fromEntries(Object.entries({ ...old, ...changes }).filter(([, value]) => value !== ''));
}
