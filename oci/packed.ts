/** Parts of the runtime specification as the API packs them: as JSON under a type of containerd's. */
import type { Any } from '../proto/gen/google/protobuf/any.ts';

/** The OCI runtime specification's config.json. */
export const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
/** Its `process`. */
export const PROCESS_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Process';
/** Its `linux.resources`. */
export const RESOURCES_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources';

/** A value as JSON, which is what containerd packs for types that are no protobuf messages. */
export function pack(typeUrl: string, value: object): Any {
  return { typeUrl, value: Buffer.from(JSON.stringify(value)) };
}
