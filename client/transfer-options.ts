/** What can be said of a transfer. */
import type { ImageReference } from '../proto/gen/containerd/types/transfer.ts';
import type { Platform } from '../proto/gen/containerd/types/platform.ts';
import type { CallOptions } from '../ttrpc/service.ts';
import type { CredentialProvider } from './credentials.ts';
import type { Descriptor } from './manifest.ts';
import type { Labels } from './namespace.ts';

/** Something that has happened, in containerd's words: `downloading`, `complete`, `extracted`, `saved` … */
export interface Progress {
  readonly event: string;
  /** What it has happened to: `layer-sha256:…`, an image's name. */
  readonly name: string;
  readonly parents: readonly string[];
  /** Bytes. */
  readonly progress: number;
  readonly total: number;
  readonly descriptor: Descriptor | undefined;
}

export interface TransferOptions extends CallOptions {
  readonly onProgress?: (progress: Progress) => void;
}

export interface RegistryOptions extends TransferOptions {
  /** Asked when a registry wants to know who we are. Default: nobody. */
  readonly credentials?: CredentialProvider | undefined;
  /** Sent with every request. */
  readonly headers?: { readonly [name: string]: string };
  /** Talk HTTP. Default: only with a registry on this host. */
  readonly plainHttp?: boolean;
  /** A folder of the daemon's host with a `hosts.toml` for each registry. */
  readonly hostsDirectory?: string;
  /** For hosts of which no `hosts.toml` says something else. PEM. */
  readonly tls?: {
    readonly ca?: Uint8Array;
    readonly certificate?: Uint8Array;
    readonly key?: Uint8Array;
    readonly skipVerify?: boolean;
  };
  /** Have every exchange with the registry told as progress `http`, with its headers or without. */
  readonly trace?: 'requests' | 'headers';
  /** Blobs under way at a time. Default: as many as the daemon takes. */
  readonly concurrency?: number;
}

/** Which images of an index. */
export type Platforms = 'all' | readonly Platform[];

export interface PullOptions extends RegistryOptions {
  /** What the image is called here. Default: as the registry has it. */
  readonly name?: string;
  readonly labels?: Labels;
  /** Default: this host's. */
  readonly platforms?: Platforms;
  /** Take also manifests and configurations of other platforms. */
  readonly allMetadata?: boolean;
  /** Take manifests and configurations only. */
  readonly metadataOnly?: boolean;
  /** Whether to make snapshots of the layers. Default: true. */
  readonly unpack?: boolean;
  /** Default: the namespace's. */
  readonly snapshotter?: string;
}

export interface PushOptions extends RegistryOptions {
  /** The name here of the image. Default: the same as there. */
  readonly source?: string | Descriptor;
  /** Default: all that is there. */
  readonly platforms?: readonly Platform[];
  /** Send also layers that are marked as not to be given away. */
  readonly nonDistributable?: boolean;
}

export interface ImportOptions extends TransferOptions {
  /** Default: as the archive says. */
  readonly names?: readonly ImportedName[];
  readonly labels?: Labels;
  /** Keep the archive's list of images as an image of this name. */
  readonly indexName?: string;
  readonly platforms?: Platforms;
  readonly compress?: boolean;
  readonly unpack?: boolean;
  readonly snapshotter?: string;
}

/** How images of an archive are called; see ImageReference in containerd's types/transfer. */
export type ImportedName = Partial<ImageReference> & { readonly name: string };

export interface ExportOptions extends TransferOptions {
  /** Default: this host's. */
  readonly platforms?: Platforms;
  /** Write what `docker load` of old needs. Default: true. */
  readonly dockerManifest?: boolean;
  /** Write layers that are marked as not to be given away. Default: true. */
  readonly nonDistributable?: boolean;
}
