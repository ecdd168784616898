import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { explain, Failure, FAILURE_STATUS } from '../failure.ts';
import { interruptible } from '../interrupt.ts';
import { labelText, parseLabels } from '../labels.ts';
import { copyOut } from '../output.ts';
import type { Session } from '../session.ts';
import { decimalSize, roughAge } from '../size.ts';
import { type FormatOptions, print, printListing } from '../table.ts';

export interface ListFlags extends FormatOptions {
  readonly quiet?: boolean;
}

export async function list(
  { client, sdk, call }: Session,
  filters: string[],
  flags: ListFlags,
): Promise<void> {
  const found = await client.content.list(filters, call);
  if (flags.quiet === true) return print(found.map(({ digest }) => digest));
  const entries = found.map(({ digest, size, createdAt, updatedAt, labels }) => ({
    digest,
    size: Number(size),
    createdAt: sdk.dateOf(createdAt),
    updatedAt: sdk.dateOf(updatedAt),
    labels,
  }));
  await printListing(
    {
      header: ['DIGEST', 'SIZE', 'AGE', 'LABELS'],
      rows: entries.map(({ digest, size, createdAt, labels }) => [
        digest,
        decimalSize(size),
        ageOf(createdAt),
        labelText(labels) || '-',
      ]),
      json: entries,
      spacing: [1, 1],
      filled: 'none',
      tabs: true,
    },
    flags,
  );
}

function ageOf(date: Date | undefined): string {
  return date === undefined ? '-' : roughAge(Math.max(Date.now() - date.getTime(), 0));
}

export async function get({ client, call }: Session, digest: string): Promise<void> {
  await copyOut(Readable.from(client.content.read(digest, call)), 1);
}

export interface IngestFlags {
  readonly expectedSize?: number;
  readonly expectedDigest?: string;
  readonly label?: readonly string[];
}

export async function ingest(session: Session, ref: string, flags: IngestFlags): Promise<void> {
  const { expectedSize, expectedDigest, label = [] } = flags;
  if (expectedDigest !== undefined) checkDigest(expectedDigest);
  await interruptible(session, 'the same command with the same bytes goes on from there', (call) =>
    session.client.content.write(ref, process.stdin, {
      ...call,
      ...(expectedSize !== undefined && expectedSize > 0 && { size: expectedSize }),
      ...(expectedDigest !== undefined && { expected: expectedDigest }),
      labels: parseLabels(label),
    }),
  );
}

export async function active(
  { client, sdk, call }: Session,
  pattern: string | undefined,
  flags: FormatOptions & { readonly timeout: number },
): Promise<void> {
  const timed = flags.timeout > 0 ? { ...call, timeout: flags.timeout } : call;
  // ctr speaks of a pattern and sends a filter: both are taken.
  const isFilter = pattern !== undefined && /^\w+[!=~]=/.test(pattern);
  const expression = patternOf(isFilter ? '' : pattern);
  const all = await client.content.statuses(isFilter ? [pattern] : [], timed);
  const found = all.filter(({ ref }) => expression.test(ref));
  const entries = found.map(({ ref, offset, total, startedAt, updatedAt, expected }) => ({
    ref,
    offset: Number(offset),
    total: Number(total),
    startedAt: sdk.dateOf(startedAt),
    updatedAt: sdk.dateOf(updatedAt),
    expected,
  }));
  await printListing(
    {
      header: ['REF', 'SIZE', 'AGE'],
      rows: entries.map(({ ref, offset, startedAt }) => [ref, decimalSize(offset), ageOf(startedAt)]),
      json: entries,
      spacing: [1, 1],
      tabs: true,
    },
    flags,
  );
}

function patternOf(pattern = ''): RegExp {
  try {
    return new RegExp(pattern);
  } catch (error) {
    throw new Failure(`${JSON.stringify(pattern)} is no regular expression: ${(error as Error).message}`);
  }
}

export async function remove({ client, sdk, call, globals }: Session, digests: string[]): Promise<void> {
  for (const digest of digests) {
    try {
      checkDigest(digest);
      await client.content.delete(digest, call);
      console.log(digest);
    } catch (error) {
      for (const line of explain(error, globals)) console.error(line);
      // Removing twice is no mistake, as with ctr.
      if (!sdk.isCode(error, sdk.Code.NotFound)) process.exitCode = FAILURE_STATUS;
    }
  }
}

export async function label({ client, call }: Session, digest: string, pairs: string[]): Promise<void> {
  const labels =
    pairs.length === 0
      ? (await client.content.info(digest, call)).labels
      : await client.content.label(digest, parseLabels(pairs), call);
  console.log(labelText(labels));
}

export interface EditFlags {
  readonly editor?: string;
  readonly validate?: string;
}

export async function edit({ client, call }: Session, digest: string, flags: EditFlags): Promise<void> {
  const { editor = process.env['EDITOR'], validate } = flags;
  if (editor === undefined || editor === '')
    throw new Failure('no editor is known', 'name one: --editor vi, or EDITOR');
  if (validate !== undefined && validate !== 'json')
    throw new Failure('--validate: only json can be validated');
  const bytes = await client.content.readAll(digest, call);
  const directory = await mkdtemp(join(tmpdir(), 'moor-edit-'));
  try {
    const file = join(directory, digest.replace(':', '-'));
    await writeFile(file, bytes, { mode: 0o600 });
    // As git and others have it: the editor may come with flags.
    const child = spawn('sh', ['-c', `${editor} "$@"`, 'sh', file], { stdio: 'inherit' });
    const [status] = (await once(child, 'exit')) as [number | null];
    if (status !== 0) throw new Failure(`${editor} has failed (${status ?? 'by a signal'})`);
    const edited = await readFile(file);
    if (validate === 'json') checkJson(edited);
    // Nothing refers to it yet: a lease holds it long enough to be used.
    const lease = await client.leases.create({ ...call, expires: EDIT_LIFE });
    console.log(await client.withLease(lease.id).content.write(`edit-${digest}`, edited, call));
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Milliseconds. */
const EDIT_LIFE = 60 * 60 * 1000;

function checkJson(bytes: Buffer): void {
  try {
    JSON.parse(bytes.toString());
  } catch (error) {
    throw new Failure(`what comes out is no JSON: ${(error as Error).message}`);
  }
}

export interface PruneFlags {
  readonly async?: boolean;
  readonly dry?: boolean;
}

/** Labels of layers, and those of old that were numbered from the configuration on, which had 0. */
const LAYER_LABEL = /^containerd\.io\/gc\.ref\.content\.(?:l\..*|[1-9]\d*|0\d+)$/;

export async function pruneReferences(session: Session, flags: PruneFlags): Promise<void> {
  const { client, call } = session;
  for await (const { digest, labels } of client.content.walk([], call)) {
    const dropped = Object.keys(labels).filter((key) => LAYER_LABEL.test(key));
    if (dropped.length === 0) continue;
    for (const key of dropped) if (flags.dry === true) console.log(`${digest} ${key}=${labels[key]}`);
    if (flags.dry === true) continue;
    await client.content.label(digest, Object.fromEntries(dropped.map((key) => [key, ''])), call);
  }
  if (flags.dry === true) return;
  // The end of a lease is a reason to collect.
  const { id } = await client.leases.create({ ...call, expires: 60_000 });
  await client.leases.delete(id, { ...call, sync: flags.async !== true });
}

function checkDigest(digest: string): void {
  if (!/^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-zA-Z=_-]+$/.test(digest))
    throw new Failure(
      `${JSON.stringify(digest)} is no digest`,
      'digests look like sha256: and 64 hexadecimal digits',
    );
}
