/**
 * Files in which vendors say how their devices are put into a container, in JSON or YAML (Container Device Interface,
 * cncf-tags/container-device-interface, SPEC.md).
 */
import { readFile, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { messageOf } from '../../../ttrpc/errors.ts';
import {
  type Kind,
  type Of,
  choice,
  expected,
  flag,
  integer,
  table,
  tableOf,
  tables,
  text,
  texts,
} from '../../schema.ts';
import { HOOK_NAMES } from '../../../oci/spec.ts';

const MAX_ID = 2 ** 32 - 2;

/** Undefined where it is not there. */
function optional<T>(kind: Kind<T>): Kind<T | undefined> {
  return { read: (value, path) => (value === undefined ? undefined : kind.read(value, path)) };
}

/** A string that must be there. */
function matching(rule: RegExp, what: string): Kind<string> {
  return {
    read(value, path) {
      if (typeof value !== 'string' || !rule.test(value)) throw expected(what, value, path);
      return value;
    },
  };
}

const variables = texts(/^[^=]+=/, 'NAME=VALUE');
const place = matching(/^\//, 'an absolute path');
const annotations = tableOf(/./, text(''));

const edits = table({
  env: variables,
  deviceNodes: tables(
    table({
      path: place,
      hostPath: optional(place),
      type: optional(choice(['b', 'c', 'u', 'p'], 'c')),
      major: optional(integer(0, 0, 4095)),
      minor: optional(integer(0, 0, 1_048_575)),
      fileMode: optional(integer(0, 0, MAX_ID)),
      permissions: optional(matching(/^(?:none|[rwm]*)$/, 'none or of r, w and m')),
      uid: optional(integer(0, 0, MAX_ID)),
      gid: optional(integer(0, 0, MAX_ID)),
    }),
  ),
  mounts: tables(
    table({
      hostPath: matching(/./, 'a path'),
      containerPath: place,
      type: optional(text('')),
      options: optional(texts(/./, 'option')),
    }),
  ),
  hooks: tables(
    table({
      hookName: {
        read(value, path) {
          const name = HOOK_NAMES.find((each) => each === value);
          if (name === undefined) throw expected(`one of ${HOOK_NAMES.join(', ')}`, value, path);
          return name;
        },
      } satisfies Kind<(typeof HOOK_NAMES)[number]>,
      path: place,
      args: optional(texts(/^/, 'string')),
      env: optional(variables),
      timeout: optional(integer(0, 0, MAX_ID)),
    }),
  ),
  additionalGids: {
    read(value = [], path) {
      if (!Array.isArray(value)) throw expected('an array of numbers', value, path);
      return (value as unknown[]).map((each) => integer(0, 0, MAX_ID).read(each, path));
    },
  } satisfies Kind<number[]>,
  intelRdt: optional(
    table({
      // A folder's name; the root of all is one as well.
      closID: optional(matching(/^(?:\/|(?!\.{1,2}$)[^/\n]{1,4095})$/, 'the name of a class of service')),
      l3CacheSchema: optional(text('')),
      memBwSchema: optional(text('')),
      schemata: optional(texts(/./, 'line of a schema')),
      enableCMT: optional(flag(false)),
      enableMBM: optional(flag(false)),
      enableMonitoring: optional(flag(false)),
    }),
  ),
});

/** What a device does to a container's specification. */
export type Edits = Of<typeof edits>;

const vendorFile = table({
  cdiVersion: matching(/^v?\d+\.\d+\.\d+$/, 'a version'),
  kind: matching(/^[A-Za-z][\w.-]*\/[A-Za-z][\w-]*$/, 'VENDOR/CLASS'),
  annotations,
  devices: tables(
    table({
      name: matching(/^[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?$/, 'the name of a device'),
      annotations,
      containerEdits: edits,
    }),
  ),
  containerEdits: edits,
});

export type VendorFile = Of<typeof vendorFile>;

/** What the files of one directory say. */
export interface VendorDirectory {
  readonly files: readonly VendorFile[];
  /** Of each that cannot be read, with its path: other vendors' devices are there all the same. */
  readonly failures: readonly string[];
}

/** Reads the files of a directory; none when it is not there. */
export async function readVendorDirectory(directory: string): Promise<VendorDirectory> {
  const files: VendorFile[] = [];
  const failures: string[] = [];
  for (const name of await namesIn(directory)) {
    const path = join(directory, name);
    try {
      files.push(vendorFile.read(await parsed(path), []));
    } catch (error) {
      failures.push(`${path}: ${messageOf(error)}`);
    }
  }
  return { files, failures };
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    const names = await readdir(directory);
    return names.filter((name) => ['.json', '.yaml'].includes(extname(name))).toSorted();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

async function parsed(path: string): Promise<unknown> {
  const content = await readFile(path, 'utf8');
  if (extname(path) === '.json') return JSON.parse(content, withoutNull);
  const { parse } = await import('yaml');
  // Vendors' own tools write and read the older version, in which 0660 is octal.
  return parse(content, withoutNull, { version: '1.1', prettyErrors: true });
}

/** A key with nothing behind it is not there. */
function withoutNull(_key: unknown, value: unknown): unknown {
  return value ?? undefined;
}
