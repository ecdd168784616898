/** The daemon's configuration: a TOML file whose keys are containerd's where it has them. */
import { readFileSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { TomlError, type TomlTable, type TomlValue, parse, stringify } from 'smol-toml';
import { levels } from './log.ts';
import {
  type Kind,
  type Of,
  SchemaError,
  absent,
  absentTable,
  choice,
  duration,
  integer,
  milliseconds,
  optionalPath,
  table,
  tableOf,
  text,
  texts,
} from './schema.ts';
import { criSettings } from './cri/settings.ts';
import { metricsSettings } from './metrics/settings.ts';
import { proxyPlugin } from './proxy/settings.ts';
import { pluginSettings } from './plugin-settings.ts';

/** `io.containerd.grpc.v1.leases`: a plugin's type with its id. */
const pluginUri = /^[a-z0-9-]+(?:\.[a-z0-9-]+)+\.v\d+\.[\w-]+$/;
const MAX_ID = 2 ** 32 - 2;
const MEGABYTE = 1 << 20;

/** Of containerd's timeouts: Moor knows by itself when a shim is gone. */
const containerdTimeout = absent(['0s', '2s', '3s', '5s', '10s', '1m0s'], 'this time is not configurable');

const owner = { uid: integer(0, 0, MAX_ID), gid: integer(0, 0, MAX_ID) };

/** containerd's files have an empty one. */
const logLevel: Kind<(typeof levels)[number]> = {
  read: (value, path) => choice(levels, 'info').read(value === '' ? undefined : value, path),
};

const schema = table({
  version: integer(3, 2, 3),
  root: text('/var/lib/moor'),
  state: text('/run/moor'),
  /** Given to shims and helpers as TMPDIR. */
  temp: optionalPath(),
  plugin_dir: absent([''], 'plugins are programs behind a socket (proxy_plugins), not libraries'),
  imports: absent([[]], 'write everything into one file'),
  oom_score: integer(0, -1000, 1000),
  disabled_plugins: texts(pluginUri, 'plugin URI'),
  required_plugins: texts(pluginUri, 'plugin URI'),
  cgroup: absentTable({ path: absent([''], 'start the daemon in the cgroup it is to be in') }),
  grpc: table({
    address: text('/run/moor/moor.sock'),
    ...owner,
    tcp_address: absent([''], 'the API is served on a unix socket only'),
    tcp_tls_ca: absent([''], 'the API is served on a unix socket only'),
    tcp_tls_cert: absent([''], 'the API is served on a unix socket only'),
    tcp_tls_key: absent([''], 'the API is served on a unix socket only'),
    max_recv_message_size: integer(16 * MEGABYTE, 1024, 1024 * MEGABYTE),
    max_send_message_size: integer(16 * MEGABYTE, 1024, 1024 * MEGABYTE),
  }),
  ttrpc: table({ address: text(''), ...owner }),
  debug: table({
    level: logLevel,
    address: absent([''], 'there is no debugging socket'),
    uid: absent([0], 'there is no debugging socket'),
    gid: absent([0], 'there is no debugging socket'),
    format: absent(['', 'json'], 'the log is JSON, a line each'),
  }),
  metrics: metricsSettings,
  /** Kubernetes' Container Runtime Interface. */
  cri: criSettings,
  /** How Moor's own shims are started: forked from one template, or each afresh. */
  shim: table({ spawn: choice(['fork', 'exec'] as const, 'fork') }),
  timeouts: table({
    'moor.timeout.shutdown': duration('5s'),
    'io.containerd.timeout.bolt.open': containerdTimeout,
    'io.containerd.timeout.metrics.shimstats': containerdTimeout,
    'io.containerd.timeout.shim.cleanup': containerdTimeout,
    'io.containerd.timeout.shim.load': containerdTimeout,
    'io.containerd.timeout.shim.shutdown': containerdTimeout,
    'io.containerd.timeout.task.state': containerdTimeout,
  }),
  stream_processors: absent([{}], 'layers are unpacked by the differ alone'),
  /** Snapshotters, content stores and differs that other processes serve. */
  proxy_plugins: tableOf(/^[\w.-]+$/, proxyPlugin),
  plugins: pluginSettings,
});

export type Config = Of<typeof schema>;

/** What the command line says instead of the file. */
export interface Flags {
  readonly address?: string;
  readonly root?: string;
  readonly state?: string;
  readonly logLevel?: string;
}

export const defaultPath = '/etc/moor/config.toml';

/** A configuration that cannot be used. The message names the file and, where there is one, the line. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export function defaultConfig(): Config {
  return schema.read({}, []);
}

/**
 * Reads the configuration from the text of a file.
 *
 * @param path for messages
 * @throws ConfigError
 */
export function parseConfig(toml: string, path: string): Config {
  try {
    return schema.read(withoutDisabled(parse(toml)), []);
  } catch (error) {
    if (error instanceof TomlError) {
      throw new ConfigError(`${path}:${error.line}: ${error.message.split('\n')[0]}`, { cause: error });
    }
    if (error instanceof SchemaError) {
      throw new ConfigError(`${path}:${lineOf(toml, error.path)}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

/** Leaves out the settings of disabled plugins, which need not even be there. */
function withoutDisabled(parsed: TomlTable): TomlTable {
  const { disabled_plugins: disabled, plugins } = parsed;
  if (!Array.isArray(disabled) || !isTable(plugins)) return parsed;
  const left = Object.entries(plugins).filter(([uri]) => !disabled.includes(uri));
  return { ...parsed, plugins: Object.fromEntries(left) };
}

function isTable(value: TomlValue | undefined): value is TomlTable {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
}

/**
 * Reads the configuration from a file and lets the flags have the last word.
 *
 * @param path undefined for the default place, where the file may be missing
 * @throws ConfigError
 */
export function loadConfig(path: string | undefined, flags: Flags): Config {
  return withFlags(readConfig(path), flags);
}

function readConfig(path: string | undefined): Config {
  try {
    return parseConfig(readFileSync(path ?? defaultPath, 'utf8'), path ?? defaultPath);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    if (path === undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') return defaultConfig();
    throw new ConfigError(`cannot read the configuration: ${(error as Error).message}`, { cause: error });
  }
}

function withFlags(config: Config, flags: Flags): Config {
  const level = levels.find((level) => level === flags.logLevel);
  if (flags.logLevel !== undefined && level === undefined) {
    throw new ConfigError(`--log-level must be one of ${levels.join(', ')}, not ${flags.logLevel}`);
  }
  const merged: Config = {
    ...config,
    root: flags.root ?? config.root,
    state: flags.state ?? config.state,
    grpc: { ...config.grpc, address: flags.address ?? config.grpc.address },
    debug: { ...config.debug, level: level ?? config.debug.level },
  };
  for (const [name, path] of [
    ['root', merged.root],
    ['state', merged.state],
    ['address', merged.grpc.address],
  ]) {
    if (!isAbsolute(path!)) throw new ConfigError(`${name} must be an absolute path, not "${path}"`);
  }
  if (merged.root === merged.state) throw new ConfigError('root and state must be different directories');
  return merged;
}

/** The socket for shims' events: the gRPC socket's twin unless the configuration names another. */
export function ttrpcAddress(config: Config): string {
  return config.ttrpc.address === '' ? `${config.grpc.address}.ttrpc` : config.ttrpc.address;
}

/** Milliseconds of one of the configured timeouts. */
export function timeout(config: Config, name: 'moor.timeout.shutdown'): number {
  return milliseconds(config.timeouts[name])!;
}

/** The configuration as a file that reads back to the same. */
export function formatConfig(config: Config): string {
  return stringify(config);
}

/**
 * The line (from 1) on which a key's value begins. The parser keeps no positions, so the file is parsed again line by line:
 * the key appears with the line that ends its value, and the value began after the last line that could be parsed before.
 */
function lineOf(toml: string, path: readonly string[]): number {
  const lines = toml.split('\n');
  let begin = 1;
  for (let end = 1; end <= lines.length; end += 1) {
    let parsed: unknown;
    try {
      parsed = parse(lines.slice(0, end).join('\n'));
    } catch {
      continue;
    }
    for (const key of path) parsed = (parsed as { [key: string]: unknown } | undefined)?.[key];
    if (parsed !== undefined) return begin;
    begin = end + 1;
  }
  return 1;
}
