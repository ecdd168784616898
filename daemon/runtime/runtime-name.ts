/** From a runtime's name to what is run. */
import { constants, accessSync, statSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { invalidArgument, notFound } from '../../ttrpc/errors.ts';

/** Either Moor's own shim, or the absolute path of another's program. */
export type RuntimeProgram = { readonly kind: 'own' } | { readonly kind: 'foreign'; readonly binary: string };

/**
 * What Moor's own shim stands in for: the runc shims of all versions, and the runtime that came before shims had names.
 */
const OWN = new Set([
  '',
  'io.containerd.runc.v2',
  'io.containerd.runc.v1',
  'io.containerd.moor.v1',
  'io.containerd.runtime.v1.linux',
]);

/**
 * Resolves a runtime's name: an absolute path is executed; of any other dotted name the last two parts name the
 * program, `a.b.NAME.VERSION` being `containerd-shim-NAME-VERSION` on PATH.
 *
 * @param path the value of PATH to search
 * @throws RpcError InvalidArgument for a name of another form, or a path at which no program is; NotFound when the
 *         program is not on PATH
 */
export function resolveRuntime(name: string, path = process.env.PATH ?? ''): RuntimeProgram {
  if (OWN.has(name)) return { kind: 'own' };
  if (isAbsolute(name)) {
    const reason = whyNotExecutable(name);
    if (reason !== undefined) throw invalidArgument(`runtime ${name}: ${reason}`);
    return { kind: 'foreign', binary: name };
  }
  const parts = name.split('.');
  if (parts.length < 2 || !parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))) {
    throw invalidArgument(
      `invalid runtime name ${quoted(name)}: it must be like io.containerd.runc.v2, or the absolute path of a shim`,
    );
  }
  const program = `containerd-shim-${parts.at(-2)}-${parts.at(-1)}`;
  for (const directory of path.split(delimiter)) {
    const binary = join(directory, program);
    if (isAbsolute(directory) && whyNotExecutable(binary) === undefined) return { kind: 'foreign', binary };
  }
  throw notFound(`runtime ${quoted(name)}: ${program} is not installed (it is not on the daemon's PATH)`);
}

function whyNotExecutable(path: string): string | undefined {
  try {
    if (!statSync(path).isFile()) return 'not a file';
    accessSync(path, constants.X_OK);
    return undefined;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return 'no such file';
    return code === 'EACCES' ? 'not executable' : String(error);
  }
}

function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}
