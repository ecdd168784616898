import type { Namespace, NetworkName } from '../identifiers.ts';
import type { HOST } from './names.ts';

/** A network that something is about to be done in. */
export interface Place {
  readonly name: NetworkName | typeof HOST;
  /** Empty for the host's. */
  readonly namespace: Namespace | '';
  /** The file of the network namespace; undefined for the one the daemon is in. */
  readonly netns: string | undefined;
}

/** A file by which programs in other networks find it. */
export function fileOf({ netns }: Place): string {
  return netns ?? `/proc/${process.pid}/ns/net`;
}
