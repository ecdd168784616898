/** `moord check`: what is wrong with what a daemon keeps on disk, and what of it can be put right. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../ttrpc/errors.ts';
import type { Config } from '../config.ts';
import type { Namespace } from '../identifiers.ts';
import { DirectoryInUse, DirectoryLock } from '../lock.ts';
import type { Reader } from '../metadata/database.ts';
import { Kind } from '../metadata/schema.ts';
import { snapshotterNames, snapshotterRoot } from '../snapshots/snapshotters.ts';
import { checkBundles } from './bundles.ts';
import { checkContent } from './content.ts';
import type { Finding } from './finding.ts';
import { checkMetadata } from './metadata.ts';
import { checkContainers, checkSnapshots } from './snapshots.ts';

export interface CheckOptions {
  /** Puts right what can be. */
  readonly repair: boolean;
  /** Does not read the bytes of blobs. */
  readonly quick: boolean;
}

/** A finding, and what came of its repair. */
export interface Checked extends Finding {
  readonly outcome: 'found' | 'repaired' | 'failed';
}

export interface Report {
  readonly root: string;
  readonly state: string;
  /** The daemon that was at work meanwhile. */
  readonly daemon: string | undefined;
  /** How many there are of each: `blobs`, `records` … */
  readonly counts: { readonly [what: string]: number };
  readonly findings: readonly Checked[];
}

/** Milliseconds after which what a daemon at work was in the middle of is done, or the next thing is. */
const LOOK_AGAIN_MS = 300;

/**
 * Checks everything below the root and the state directory. With a daemon at work nothing is changed, and only what is found wrong
 * twice is told.
 *
 * @throws Error when it cannot be done: there is no store, a newer version has written it, or a daemon is in the way of repairs
 */
export async function check(config: Config, { repair, quick }: CheckOptions): Promise<Report> {
  const { root, state } = config;
  const directory = join(root, 'metadata');
  if (!existsSync(directory)) throw new Error(`there is no metadata in ${directory}`);
  using locks = new DisposableStack();
  const daemon = lock(
    locks,
    [root, state].filter((path) => existsSync(path)),
  );
  const busy = daemon !== undefined;
  if (busy && repair) throw new Error(`${daemon}: stop that before a repair`);
  const metadata = await checkMetadata(directory, { busy, repair });
  try {
    const { database: reader } = metadata;
    const first = await checkAll(config, reader, { busy, quick });
    let { findings } = first;
    if (busy && findings.length > 0) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
      const names = new Set(findings.map(({ object, problem }) => `${object}\0${problem}`));
      const only = new Set(findings.map(({ object }) => object));
      const second = await checkAll(config, reader, { busy, quick, only });
      findings = second.findings.filter(({ object, problem }) => names.has(`${object}\0${problem}`));
    }
    const all = [...metadata.findings, ...findings];
    const checked: Checked[] = [];
    for (const finding of all) checked.push(await settle(finding, repair));
    return { root, state, daemon, counts: { records: metadata.records, ...first.counts }, findings: checked };
  } finally {
    await metadata.close();
  }
}

/** @returns the daemon that has one of the directories */
function lock(locks: DisposableStack, directories: readonly string[]): string | undefined {
  for (const directory of directories) {
    try {
      const lock = new DirectoryLock(directory);
      locks.defer(() => lock.release());
    } catch (error) {
      if (error instanceof DirectoryInUse) return error.message;
      throw error;
    }
  }
  return undefined;
}

async function checkAll(
  config: Config,
  reader: Reader,
  { busy, quick, only }: { busy: boolean; quick: boolean; only?: ReadonlySet<string> },
): Promise<{ findings: Finding[]; counts: { [what: string]: number } }> {
  const { root, state, plugins } = config;
  const namespaces = Array.from(reader.rest(['', Kind.Namespace]), ([name]) => name as Namespace);
  // What another process keeps is that one's to check.
  const keepsContent = !Object.values(config.proxy_plugins).some(({ type }) => type === 'content');
  const directory = join(root, 'content');
  const content = keepsContent
    ? await checkContent(reader, namespaces, { directory, quick, only })
    : { findings: [], blobs: 0 };
  const snapshots = snapshotterNames.map((name) => {
    const folder = snapshotterRoot(root, name, plugins[`io.containerd.snapshotter.v1.${name}`]);
    return checkSnapshots(reader, namespaces, name, folder);
  });
  const containers = checkContainers(reader, namespaces, snapshotterNames);
  const bundles = await checkBundles(reader, { state, busy });
  return {
    findings: [content, ...snapshots, containers, bundles].flatMap((part) => part.findings),
    counts: {
      namespaces: namespaces.length,
      blobs: content.blobs,
      snapshots: snapshots.reduce((sum, part) => sum + part.snapshots, 0),
      containers: containers.containers,
      bundles: bundles.bundles,
    },
  };
}

async function settle(finding: Finding, repair: boolean): Promise<Checked> {
  if (!repair || finding.repair === undefined) return { ...finding, outcome: 'found' };
  try {
    await finding.repair.run();
    return { ...finding, outcome: 'repaired' };
  } catch (error) {
    const advice = `the repair failed: ${messageOf(error)}`;
    return { ...finding, outcome: 'failed', advice };
  }
}
