/** What the configuration says of a plugin that another process serves: `[proxy_plugins.NAME]`, as containerd has it. */
import { isAbsolute } from 'node:path';
import {
  type Kind,
  SchemaError,
  duration,
  expected,
  nameOf,
  table,
  tableOf,
  text,
  texts,
} from '../schema.ts';

export type ProxyKind = 'snapshot' | 'content' | 'diff';

const kinds: { readonly [type: string]: ProxyKind } = {
  snapshot: 'snapshot',
  content: 'content',
  diff: 'diff',
  'io.containerd.snapshotter.v1': 'snapshot',
  'io.containerd.content.v1': 'content',
  'io.containerd.differ.v1': 'diff',
};

const kind: Kind<ProxyKind> = {
  read(value, path) {
    if (typeof value !== 'string' || !Object.hasOwn(kinds, value)) {
      throw expected('one of snapshot, content, diff', value ?? '', path);
    }
    return kinds[value]!;
  },
};

/** A unix socket's absolute path, with or without the scheme before it. */
const socket: Kind<string> = {
  read(value, path) {
    if (typeof value !== 'string') throw expected('the path of a unix socket', value ?? '', path);
    const bare = value.replace(/^unix:(?:\/\/(?=\/))?/, '');
    if (!isAbsolute(bare)) throw expected('the absolute path of a unix socket', value, path);
    return bare;
  },
};

/** `os/architecture` and perhaps a variant; empty for the host's. */
const platform: Kind<string> = {
  read(value = '', path) {
    if (typeof value === 'string' && /^(?:[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9]+)?)?$/.test(value)) return value;
    throw new SchemaError(path, `${nameOf(path)} must be like "linux/amd64"`);
  },
};

export const proxyPlugin = table({
  type: kind,
  address: socket,
  platform,
  exports: tableOf(/./, text('')),
  capabilities: texts(/^\S+$/, 'capability'),
  /** How long the plugin may take for what is quick, and be silent during the rest. */
  timeout: duration('10s'),
  /** How long the plugin may take for what moves data. */
  work_timeout: duration('10m'),
});

export type ProxySettings = ReturnType<typeof proxyPlugin.read>;
