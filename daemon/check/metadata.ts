/** The metadata store: its pages, its format, and whether every record can be read. */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bufferToKeyValue, open } from 'lmdb';
import { Container } from '../../proto/gen/containerd/services/containers.ts';
import { Info } from '../../proto/gen/containerd/services/content.ts';
import { Image } from '../../proto/gen/containerd/services/images.ts';
import { Lease, Resource } from '../../proto/gen/containerd/services/leases.ts';
import { Namespace } from '../../proto/gen/containerd/services/namespaces.ts';
import { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import { Network, PendingLink } from '../../proto/gen/moor/metadata/network.ts';
import { Pod, PodContainer } from '../../proto/gen/moor/metadata/pod.ts';
import { ForeignSnapshot, Snapshot, SnapshotSequence } from '../../proto/gen/moor/metadata/snapshot.ts';
import { messageOf } from '../../ttrpc/errors.ts';
import type { MessageType } from '../../ttrpc/service.ts';
import { ReadOnlyDatabase, readFormat } from '../metadata/database.ts';
import { PageFile, type RawRecord, type Snapshot as State } from '../metadata/page-file.ts';
import { FORMAT, Kind, formatKey } from '../metadata/schema.ts';
import type { Finding } from './finding.ts';

declare module 'lmdb' {
  /** What a key reads as; its own types leave this out. */
  function bufferToKeyValue(bytes: Uint8Array): unknown;
}

/** A daemon at work may have written half of what is being read; what is wrong each time is wrong. */
const ATTEMPTS = 20;
const PAUSE_MS = 25;

const types: { readonly [kind: string]: MessageType<unknown> } = {
  [Kind.Namespace]: Namespace,
  [Kind.Container]: Container,
  [Kind.Sandbox]: Sandbox,
  [Kind.Lease]: Lease,
  [Kind.LeaseResource]: Resource,
  [Kind.Content]: Info,
  [Kind.Ingest]: Info,
  [Kind.Image]: Image,
  [Kind.Network]: Network,
  [Kind.Pod]: Pod,
  [Kind.PodContainer]: PodContainer,
  [Kind.PendingLink]: PendingLink,
  [Kind.SnapshotChild]: SnapshotSequence,
  [Kind.SnapshotSequence]: SnapshotSequence,
  [Kind.ForeignSnapshot]: ForeignSnapshot,
};

export interface CheckedMetadata {
  readonly findings: readonly Finding[];
  /** How many records can be read. */
  readonly records: number;
  /** Those records, in the store itself, or in a copy of what can be read of it. */
  readonly database: ReadOnlyDatabase;
  close(): Promise<void>;
}

/**
 * Reads the store from end to end, and puts the readable records in its place when it is damaged and `repair` is asked for; the damaged
 * one stays beside it.
 *
 * @param directory `<root>/metadata`
 * @param busy whether a daemon may be writing it
 * @throws Error when there is none, or a newer version of Moor has written it
 */
export async function checkMetadata(
  directory: string,
  { busy, repair }: { readonly busy: boolean; readonly repair: boolean },
): Promise<CheckedMetadata> {
  const state = await readState(directory, busy);
  const sound: RawRecord[] = [];
  const findings: Finding[] = state.damages.map(({ page, problem }) => ({
    object: `page ${page} of ${join(directory, 'data.mdb')}`,
    problem,
    kind: 'damaged',
  }));
  let format: string | undefined;
  for (const record of state.records) {
    const key = keyOf(record.key);
    if (key !== undefined && key.join('/') === formatKey.join('/')) format = record.value.toString();
    const problem = key === undefined ? 'its key cannot be read' : mistakeIn(key, record.value);
    if (problem === undefined) sound.push(record);
    else findings.push({ object: `record ${nameOf(record.key)}`, problem, kind: 'damaged' });
  }
  if (format === undefined && state.entries > 0) {
    findings.push({ object: directory, problem: 'the record of its format is missing', kind: 'damaged' });
  } else if (format !== undefined) readFormat(format, directory);
  if (findings.length === 0) return openAs(directory, findings, sound.length);
  const lost = Math.max(state.entries - sound.length, 0);
  const rest = `${sound.length} records can be read${lost > 0 ? `, ${lost} cannot` : ''}`;
  if (!repair) {
    const advice = `${rest}: put a backup in its place, or have \`moord check --repair\` go on with those`;
    return withRest(
      sound,
      findings.map((finding) => ({ ...finding, advice })),
    );
  }
  const aside = await replace(directory, sound);
  const done = `${rest}; what was there is in ${aside}`;
  const repaired = findings.map((finding) => ({
    ...finding,
    repair: { done, run: () => Promise.resolve() },
  }));
  return openAs(directory, repaired, sound.length);
}

/** The newest state; the one before it where that is whole and the newest is not. */
async function readState(directory: string, busy: boolean): Promise<State> {
  for (let attempt = 1; ; attempt += 1) {
    const file = PageFile.read(directory);
    if (file === undefined) throw new Error(`there is no metadata in ${directory}`);
    const newest = file.newest();
    if (newest.damages.length === 0) return newest;
    if (busy && attempt < ATTEMPTS) {
      await sleep(PAUSE_MS);
      continue;
    }
    const previous = file.previous();
    // Its own damages are told all the same: the newest is what counts.
    if (previous !== undefined && previous.damages.length === 0)
      return { ...previous, damages: newest.damages };
    return newest;
  }
}

function keyOf(bytes: Buffer): string[] | undefined {
  try {
    const key: unknown = bufferToKeyValue(bytes);
    // An empty first part reads as nothing.
    const parts: unknown[] = Array.isArray(key) ? key.map((part: unknown) => part ?? '') : [];
    return parts.length > 1 && parts.every((part) => typeof part === 'string') ? parts : undefined;
  } catch {
    return undefined;
  }
}

function nameOf(bytes: Buffer): string {
  return keyOf(bytes)?.join('/') ?? bytes.toString('hex');
}

function mistakeIn([, kind = '']: string[], value: Buffer): string | undefined {
  if (kind === formatKey[1]) return undefined;
  const type = kind.startsWith('snapshot/') ? Snapshot : types[kind];
  // One that was never made here is kept as it is.
  if (type === undefined) return undefined;
  try {
    type.decode(value);
    return undefined;
  } catch (error) {
    return `it cannot be read: ${messageOf(error)}`;
  }
}

async function openAs(
  directory: string,
  findings: readonly Finding[],
  records: number,
): Promise<CheckedMetadata> {
  const database = ReadOnlyDatabase.open(directory);
  return { findings, records, database, close: () => database.close() };
}

/** The records in a store of their own, for the other checks. */
async function withRest(
  records: readonly RawRecord[],
  findings: readonly Finding[],
): Promise<CheckedMetadata> {
  const directory = mkdtempSync(join(tmpdir(), 'moor-check-'));
  await write(directory, records);
  const database = ReadOnlyDatabase.open(directory);
  const close = async (): Promise<void> => {
    await database.close();
    rmSync(directory, { recursive: true });
  };
  return { findings, records: records.length, database, close };
}

/** @returns where the old one is */
async function replace(directory: string, records: readonly RawRecord[]): Promise<string> {
  const made = `${directory}-new`;
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { mode: 0o700 });
  await write(made, records);
  let aside: string;
  for (let number = 1; existsSync((aside = `${directory}-damaged-${number}`)); number += 1);
  renameSync(directory, aside);
  renameSync(made, directory);
  const parent = openSync(dirname(directory), 'r');
  fsyncSync(parent);
  closeSync(parent);
  return aside;
}

async function write(directory: string, records: readonly RawRecord[]): Promise<void> {
  const store = open<Buffer, string[]>({ path: directory, encoding: 'binary', overlappingSync: false });
  try {
    store.transactionSync(() => {
      store.putSync([...formatKey], Buffer.from(String(FORMAT)));
      for (const { key, value } of records) store.putSync(keyOf(key)!, value);
    });
  } finally {
    await store.close();
  }
}
