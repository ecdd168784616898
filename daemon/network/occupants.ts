/** Who uses a network. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Container } from '../../proto/gen/containerd/services/containers.ts';
import type { Namespace } from '../identifiers.ts';
import { inodeOf } from './netns.ts';

interface Containers {
  list(namespace: Namespace): readonly Container[];
}

/** Somebody who uses the network, in words; undefined when nobody does. */
export function occupantOf(containers: Containers, namespace: Namespace, path: string): string | undefined {
  for (const { id, spec } of containers.list(namespace)) {
    if (joins(spec?.value, path)) return `container "${id}"`;
  }
  const target = `net:[${inodeOf(path)}]`;
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      if (readlinkSync(`/proc/${pid}/ns/net`) === target) return `process ${pid} (${nameOf(pid)})`;
    } catch {
      // It has ended since the listing.
    }
  }
  return undefined;
}

function nameOf(pid: string): string {
  return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
}

/** Whether the OCI specification has the container join the network namespace. */
function joins(spec: Uint8Array | undefined, path: string): boolean {
  if (spec === undefined) return false;
  const text = Buffer.from(spec).toString();
  // Most specifications need not be parsed for that.
  if (!text.includes(path)) return false;
  try {
    const { linux } = JSON.parse(text) as Specification;
    return (
      linux?.namespaces?.some(({ type, path: joined }) => type === 'network' && joined === path) ?? false
    );
  } catch {
    // A specification is the client's to write. One that is no JSON joins nothing.
    return false;
  }
}

interface Specification {
  readonly linux?: { readonly namespaces?: readonly { readonly type?: string; readonly path?: string }[] };
}
