import { randomUUID } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { IntrospectionDefinition, type Plugin } from '../../proto/gen/containerd/services/introspection.ts';
import { RuntimeInfo, RuntimeRequest } from '../../proto/gen/containerd/types/runtime_info.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, notFound, unimplemented } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { messageAny, typeNameOf } from '../distribution/any.ts';
import { type Fields, parseFilters, present } from '../filters/filter.ts';
import { type Service, service } from '../grpc/server.ts';
import type { LoadedPlugin, LoadedPlugins } from '../loaded-plugins.ts';
import { runtimeInfo } from '../runtime/runtime-info.ts';
import { replaceFile } from '../file.ts';

/** Who this daemon is. */
export interface ServerIdentity {
  /** Of the root directory, for its whole life. */
  readonly uuid: string;
  readonly pid: number;
  /** The pid namespace's inode number, which tells what world `pid` belongs to. */
  readonly pidns: bigint;
}

/** The type of the plugin that has all runtimes. */
const RUNTIME: LoadedPlugin['type'] = 'io.containerd.runtime.v2';
const REQUEST = 'containerd.types.RuntimeRequest';

const uuidPattern = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Reads the identity kept in the root directory, and makes one the first time. */
export function readIdentity(root: string): ServerIdentity {
  const path = join(root, 'uuid');
  let uuid = '';
  try {
    uuid = readFileSync(path, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  if (!uuidPattern.test(uuid)) {
    uuid = randomUUID();
    replaceFile(path, uuid);
  }
  return { uuid, pid: process.pid, pidns: statSync('/proc/self/ns/pid', { bigint: true }).ino };
}

export function introspectionService(identity: ServerIdentity, plugins: LoadedPlugins): Service {
  return service(IntrospectionDefinition, {
    async plugins({ filters }) {
      const filter = parseFilters(filters);
      return { plugins: plugins.rows.filter((row) => filter(fieldsOf(row))).map(describe) };
    },

    async server() {
      const { uuid, pid, pidns } = identity;
      return { uuid, pid: BigInt(pid), pidns };
    },

    async pluginInfo({ type, id, options }) {
      const row = plugins.rows.find((row) => row.type === type && row.id === id);
      if (row === undefined) throw notFound(`plugin ${type}.${id}: not found`);
      if (type !== RUNTIME) {
        if (options !== undefined)
          throw unimplemented(`plugin ${type}.${id} takes no options: not implemented`);
        return { plugin: describe(row) };
      }
      // A runtime is named in the options, since all of them are one plugin.
      return { plugin: describe(row), extra: await infoOf(options) };
    },
  });
}

async function infoOf(options: Any | undefined): Promise<Any | undefined> {
  if (options === undefined) return undefined;
  const name = typeNameOf(options);
  if (name !== REQUEST) {
    throw invalidArgument(
      `options of the type ${JSON.stringify(name.slice(0, 160))}, not ${REQUEST}: invalid argument`,
    );
  }
  const info = await runtimeInfo(RuntimeRequest.decode(options.value));
  return messageAny('containerd.types.RuntimeInfo', RuntimeInfo, info);
}

function describe(row: LoadedPlugin): PartialMessage<Plugin> {
  const { type, id, requires, platforms, capabilities, exports, error } = row;
  return {
    type,
    id,
    requires: [...requires],
    platforms: platforms.map((platform) => {
      const [os = '', architecture = '', variant = ''] = platform.split('/');
      return { os, architecture, variant };
    }),
    capabilities: [...capabilities],
    exports,
    initErr: error && { code: error.code, message: error.message },
  };
}

function fieldsOf({ type, id }: LoadedPlugin): Fields {
  return ([first]) => {
    if (first === 'type') return present(type);
    return first === 'id' ? present(id) : undefined;
  };
}
