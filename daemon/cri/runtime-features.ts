/** What an OCI runtime and this kernel can do, as the runtime tells of itself (runtime-spec, features.md). */
import { execFile } from 'node:child_process';
import { release } from 'node:os';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Milliseconds for a program that only prints. */
const TIMEOUT_MS = 10_000;
/** Mounts can be made read-only with all below them since then (mount_setattr(2)). */
const MOUNT_SETATTR = [5, 12] as const;

export interface RuntimeFeatures {
  readonly recursiveReadOnlyMounts: boolean;
  /** That pods may have their own, with volumes whose files are theirs. */
  readonly userNamespaces: boolean;
}

const known = new Map<string, Promise<RuntimeFeatures>>();

/**
 * @param binary the runtime's program; empty for runc
 * @returns nothing of it for a runtime that does not tell
 */
export function runtimeFeatures(binary: string): Promise<RuntimeFeatures> {
  const program = binary || 'runc';
  const asked = known.get(program) ?? ask(program);
  known.set(program, asked);
  return asked;
}

async function ask(program: string): Promise<RuntimeFeatures> {
  try {
    const { stdout } = await run(program, ['features'], { timeout: TIMEOUT_MS });
    const { mountOptions = [], linux = {} } = JSON.parse(stdout) as {
      readonly mountOptions?: readonly string[];
      readonly linux?: {
        readonly namespaces?: readonly string[];
        readonly mountExtensions?: { readonly idmap?: { readonly enabled?: boolean } };
      };
    };
    // A runtime that does not know of it mounts volumes with the owners that they have on the node, and says nothing.
    const mapsMounts = linux.mountExtensions?.idmap?.enabled === true;
    return {
      recursiveReadOnlyMounts: mountOptions.includes('rro') && isKernelAtLeast(...MOUNT_SETATTR),
      userNamespaces: linux.namespaces?.includes('user') === true && mapsMounts,
    };
  } catch {
    known.delete(program);
    return { recursiveReadOnlyMounts: false, userNamespaces: false };
  }
}

function isKernelAtLeast(major: number, minor: number): boolean {
  const [first = 0, second = 0] = release().split('.').map(Number);
  return first > major || (first === major && second >= minor);
}
