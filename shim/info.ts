import { execFileSync } from 'node:child_process';
import { RuntimeInfo } from '../proto/gen/containerd/types/runtime_info.ts';
import { Any } from '../proto/gen/google/protobuf/any.ts';
import { pack } from './any.ts';
import { parseOptions } from './options.ts';
import manifest from '../package.json' with { type: 'json' };

/** The shim's name as a runtime. */
const NAME = 'io.containerd.moor.v1';
const FEATURES = 'types.containerd.io/opencontainers/runtime-spec/1/features/Features';

/** What `-v` prints; for people. */
export function versionText(program: string): string {
  return `${program}:\n  Version:  ${manifest.version}\n  Node version: ${process.version}\n`;
}

/**
 * What `-info` prints, encoded: which shim this is, and what the OCI runtime says it can do.
 *
 * @param stdin the runtime options as an Any, or nothing
 */
export function encodeInfo(stdin: Uint8Array): Uint8Array {
  const options = stdin.length === 0 ? undefined : Any.decode(stdin);
  const info = RuntimeInfo.fromPartial({
    name: NAME,
    version: { version: manifest.version },
    options,
    features: readFeatures(parseOptions(options).binaryName || 'runc'),
  });
  return RuntimeInfo.encode(info).finish();
}

function readFeatures(binary: string): Any | undefined {
  try {
    const stdio: ('ignore' | 'pipe')[] = ['ignore', 'pipe', 'ignore'];
    return pack(FEATURES, execFileSync(binary, ['features'], { timeout: 10_000, stdio }));
  } catch {
    // Runtimes older than version 1.1 of the specification cannot tell.
    return undefined;
  }
}
