import { randomUUID } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { IntrospectionDefinition, type Plugin } from '../../proto/gen/containerd/services/introspection.ts';
import { notFound } from '../../ttrpc/errors.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import { type Fields, parseFilters, present } from '../filters/filter.ts';
import { type Service, service } from '../grpc/server.ts';
import type { LoadedPlugin, LoadedPlugins } from '../plugins.ts';
import { replaceFile } from '../file.ts';

/** Who this daemon is. */
export interface ServerIdentity {
  /** Of the root directory, for its whole life. */
  readonly uuid: string;
  readonly pid: number;
  /** The pid namespace's inode number, which tells what world `pid` belongs to. */
  readonly pidns: bigint;
}

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

    async pluginInfo({ type, id }) {
      const row = plugins.rows.find((row) => row.type === type && row.id === id);
      if (row === undefined) throw notFound(`plugin ${type}.${id}: not found`);
      return { plugin: describe(row) };
    },
  });
}

/** Node's names of processors in Go's words. */
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

function describe({ type, id, requires, native, exports, error }: LoadedPlugin): PartialMessage<Plugin> {
  const platform = { os: 'linux', architecture: architectures[process.arch] ?? process.arch };
  return {
    type,
    id,
    requires: [...requires],
    platforms: native === true ? [platform] : [],
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
