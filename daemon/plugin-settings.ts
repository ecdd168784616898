/** What the configuration may say to single plugins: the tables `[plugins."TYPE.ID"]`, with containerd's keys and defaults. */
import {
  SchemaError,
  absent,
  absentTable,
  choice,
  duration,
  flag,
  integer,
  number,
  optionalPath,
  table,
  tables,
  text,
  texts,
} from './schema.ts';
import type { Kind, Of } from './schema.ts';
import { defaultLimits } from './diff/limits.ts';

const MAX = Number.MAX_SAFE_INTEGER;
const MAX_COUNT = 2 ** 31 - 1;
/** Layers under way at the same time. */
const LAYERS = 6;

const platform = /^[a-z0-9]+(?:\/[a-z0-9_]+){0,2}$/;
const name = /^[\w.-]+$/;

const snapshotter = { root_path: optionalPath() };

const known = {
  'io.containerd.gc.v1.scheduler': table({
    pause_threshold: number(0.02),
    deletion_threshold: integer(0, -MAX_COUNT, MAX_COUNT),
    mutation_threshold: integer(100, -MAX_COUNT, MAX_COUNT),
    schedule_delay: duration('0s'),
    startup_delay: duration('100ms'),
  }),
  /** What a layer may cost; see `Limits`. */
  'io.containerd.differ.v1.walking': table({
    max_entries: integer(defaultLimits.entries, 1, MAX),
    max_bytes: integer(defaultLimits.bytes, 1, MAX),
    max_ratio: integer(defaultLimits.ratio, 1, MAX),
    max_ratio_from_bytes: integer(defaultLimits.freeBytes, 0, MAX),
    max_path_bytes: integer(defaultLimits.pathBytes, 1, defaultLimits.pathBytes),
    max_depth: integer(defaultLimits.depth, 1, defaultLimits.pathBytes),
  }),
  'io.containerd.snapshotter.v1.overlayfs': table({
    ...snapshotter,
    upperdir_label: flag(false),
    sync_remove: flag(false),
    mount_options: texts(/^[^,\s]+$/, 'mount option'),
    slow_chown: absent([false], 'files are never given other owners by copying'),
  }),
  'io.containerd.snapshotter.v1.native': table(snapshotter),
  'io.containerd.snapshotter.v1.btrfs': table(snapshotter),
  'io.containerd.metadata.v1.bolt': table({
    content_sharing_policy: choice(['shared', 'isolated'] as const, 'shared'),
    no_sync: absent([false], 'metadata that a call has answered for is on the disk'),
  }),
  'io.containerd.runtime.v2.task': table({
    platforms: texts(platform, 'platform'),
    sched_core: absent([false], 'core scheduling is not set up'),
  }),
  'io.containerd.service.v1.diff-service': table({
    default: texts(name, 'differ', ['walking']),
    sync_fs: flag(false),
  }),
  'io.containerd.transfer.v1.local': table({
    max_concurrent_downloads: integer(LAYERS, 1, 1000),
    max_concurrent_uploaded_layers: integer(LAYERS, 1, 1000),
    /** Where `hosts.toml` files are for clients that name no place. */
    config_path: optionalPath(),
    check_platform_supported: absent([false], 'every platform is unpacked that a client asks for'),
    /** Which differ unpacks onto which snapshotter. */
    unpack_config: tables(
      table({
        platform: absent([''], 'a differ is chosen by the snapshotter alone'),
        snapshotter: text('overlayfs'),
        differ: text(''),
      }),
    ),
  }),
  /** How often containers are looked at that are to be kept running; an end is seen at once. */
  'io.containerd.internal.v1.restart': table({ interval: duration('10s') }),
  'io.containerd.internal.v1.opt': absentTable({
    path: absent(['', '/opt/containerd'], 'put what you install there on the PATH'),
  }),
} satisfies { readonly [uri: string]: Kind<unknown> };

type Known = typeof known;

export type PluginSettings = { readonly [U in keyof Known]: Of<Known[U]> };

/** The plugins' tables. Those of plugins that are not there may ask for nothing. */
export const pluginSettings: Kind<PluginSettings> = {
  read(value = {}, path) {
    const others: { [uri: string]: Kind<undefined> } = {};
    if (typeof value === 'object' && value !== null) {
      for (const uri of Object.keys(value)) if (!Object.hasOwn(known, uri)) others[uri] = nothing(uri);
    }
    return table({ ...known, ...others }).read(value, path);
  },
};

/** Settings of a plugin that is not there: whatever they would change is refused. */
function nothing(uri: string): Kind<undefined> {
  return {
    read(value, path) {
      if (isIdle(value)) return undefined;
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw new SchemaError(
          path,
          `there is no plugin ${uri} that could be set up; disable it or leave this out`,
        );
      }
      for (const [key, item] of Object.entries(value)) nothing(uri).read(item, [...path, key]);
      return undefined;
    },
  };
}

function isIdle(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return value === undefined || !value;
  return Object.keys(value).length === 0;
}
