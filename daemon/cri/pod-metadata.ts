/** Pods among the sandboxes that clients of the 2.x line list: under the names, and with the metadata, that containerd's CRI gives them. */
import { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import type { Cri } from './cri.ts';
import { type Pod, isListed, timestampOf } from './pod.ts';
import { runtimeOptions } from './pod-life.ts';
import { runtimeOf } from './settings.ts';

/** The controller that runs pods. */
export const POD_CONTROLLER = 'podsandbox';
/** Of the extension with a pod's metadata, and the type of what is in it. */
const METADATA = 'metadata';
const METADATA_TYPE = 'github.com/containerd/cri/pkg/store/sandbox/Metadata';

/** Fields of a pod's configuration whose keys are people's own. */
const MAPS = new Set(['labels', 'annotations', 'sysctls', 'unified']);

/** What clients see of pods in the store of sandboxes. */
export function podSandboxes(cri: Cri): Sandbox[] {
  return cri.pods
    .list()
    .filter(isListed)
    .map((pod) => sandboxOf(cri, pod));
}

function sandboxOf(cri: Cri, pod: Pod): Sandbox {
  const { id, name, createdAt, runtimeHandler } = pod;
  const runtime = runtimeOf(cri.settings, runtimeHandler);
  const time = timestampOf(createdAt);
  const value = Buffer.from(JSON.stringify({ Version: 'v1', Metadata: metadataOf(pod) }));
  return Sandbox.fromPartial({
    sandboxId: id,
    // A handler may have gone from the configuration since.
    runtime: runtime && { name: runtime.runtime_type, options: runtimeOptions(cri, runtime) },
    labels: { name },
    createdAt: time,
    updatedAt: time,
    extensions: { [METADATA]: { typeUrl: METADATA_TYPE, value } },
    sandboxer: POD_CONTROLLER,
  });
}

function metadataOf({ id, name, config, netns, addresses, runtimeHandler }: Pod): object {
  const [ip = '', ...more] = addresses;
  return {
    ID: id,
    Name: name,
    Config: config && snakeCased(config),
    NetNSPath: netns,
    IP: ip,
    AdditionalIPs: more,
    RuntimeHandler: runtimeHandler,
    CNIResult: null,
    ProcessLabel: '',
  };
}

/** A message as Go's JSON has it: with the field names of its contract, and without what is not set. */
function snakeCased(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(snakeCased);
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined && field !== '');
  return Object.fromEntries(
    fields.map(([key, field]: [string, unknown]) => [
      key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      MAPS.has(key) ? field : snakeCased(field),
    ]),
  );
}
