/** Network configurations as CNI has them: lists of plugins that do their work one after the other (CNI specification 1.0, section 1). */
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';

/** What one plugin is told. All but `type` is between the operator and the plugin. */
export interface PluginConfig {
  /** The name of its program. */
  readonly type: string;
  /** What it can be told of each container, by name: `portMappings` and the like. */
  readonly capabilities?: { readonly [name: string]: boolean };
  readonly [key: string]: unknown;
}

export interface NetworkList {
  readonly cniVersion: string;
  readonly name: string;
  /** Whether CHECK is not to be asked. */
  readonly disableCheck: boolean;
  readonly plugins: readonly PluginConfig[];
}

/** What libcni takes for the name of a network or the id of a container. It is safe in file names. */
const name = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
/** The first version with a number in configurations; without one, that is meant. */
const OLDEST = '0.1.0';
const version = /^\d+\.\d+\.\d+$/;

/**
 * Reads a list (`.conflist`) or the configuration of a single plugin (`.conf`), which is a list of one.
 *
 * @param source where it is from, for messages
 * @throws RpcError InvalidArgument
 */
export function parseNetworkList(text: string, source: string): NetworkList {
  const refuse = (why: string): never => {
    throw invalidArgument(`CNI configuration ${source}: ${why}: invalid argument`);
  };
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    return refuse(`not JSON: ${messageOf(error)}`);
  }
  if (!isObject(parsed)) return refuse('not an object');
  const { plugins = [parsed], cniVersion = OLDEST, disableCheck = false } = parsed;
  if (typeof parsed['name'] !== 'string' || !isName(parsed['name']))
    return refuse('it has no name, or a malformed one');
  if (typeof cniVersion !== 'string' || !version.test(cniVersion)) return refuse('cniVersion is malformed');
  if (typeof disableCheck !== 'boolean') return refuse('disableCheck is neither true nor false');
  if (!Array.isArray(plugins) || plugins.length === 0) return refuse('there are no plugins in it');
  for (const plugin of plugins as unknown[]) {
    // The type becomes part of a path.
    if (!isObject(plugin) || typeof plugin['type'] !== 'string' || !/^[^/]+$/.test(plugin['type']))
      return refuse('a plugin has no type, or a malformed one');
    if (plugin['type'].startsWith('.')) return refuse(`${plugin['type']} is no plugin`);
    if (plugin['capabilities'] !== undefined && !isObject(plugin['capabilities']))
      return refuse(`capabilities of ${plugin['type']} are malformed`);
  }
  return { cniVersion, name: parsed['name'], disableCheck, plugins: plugins as PluginConfig[] };
}

/** Whether it can be the name of a network or the id of a container. */
export function isName(value: string): boolean {
  return name.test(value) && value.length <= 128;
}

/** Whether a version is at least another. Both are three numbers. */
export function isAtLeast(found: string, wanted: string): boolean {
  const [a, b] = [found, wanted].map((text) => text.split('.').map(Number)) as [number[], number[]];
  const at = a.findIndex((number, index) => number !== b[index]);
  return at < 0 || a[at]! > b[at]!;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
