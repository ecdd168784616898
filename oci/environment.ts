/** Without one, runc finds only commands that are given by their path. */
export const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The variables with others set over them; a name without a value removes its variable. */
export function withEnvironment(base: readonly string[], changes: readonly string[]): string[] {
  const variables = new Map(base.map((variable) => [nameOf(variable), variable]));
  for (const change of changes) {
    if (change === '') continue;
    if (change.includes('=')) variables.set(nameOf(change), change);
    else variables.delete(change);
  }
  return [...variables.values()];
}

function nameOf(variable: string): string {
  return variable.split('=', 1)[0]!;
}
