/** Bundles, shims' sockets and what else there is below the state directory. */
import { existsSync, readdirSync } from 'node:fs';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../ttrpc/errors.ts';
import { TtrpcClient } from '../../ttrpc/client.ts';
import type { Reader } from '../metadata/database.ts';
import { Kind } from '../metadata/schema.ts';
import { type Bundle, listBundles, removeRemains } from '../runtime/bundle.ts';
import type { Finding } from './finding.ts';

export interface BundleOptions {
  readonly state: string;
  /** A daemon is there, which owns what it is about to remove. */
  readonly busy: boolean;
}

/** @returns what is wrong, and how many bundles there are */
export async function checkBundles(
  reader: Reader,
  { state, busy }: BundleOptions,
): Promise<{ findings: Finding[]; bundles: number }> {
  const { bundles, remains, strangers } = listBundles(join(state, 'tasks'));
  const findings: Finding[] = [];
  const addresses = new Set<string>();
  for (const bundle of bundles) {
    const { address, ...finding } = await look(bundle, reader, busy);
    if (address !== undefined) addresses.add(address);
    if (finding.problem !== undefined) findings.push({ kind: 'note', ...finding, problem: finding.problem });
  }
  for (const { path } of remains) {
    const repair = { done: 'it has been removed', run: () => removeRemains(path) };
    findings.push({ object: `bundle ${path}`, problem: 'its task is deleted', kind: 'leftover', repair });
  }
  for (const path of strangers)
    findings.push({ object: path, problem: 'it is no bundle, and is left alone', kind: 'note' });
  for (const path of socketsIn(join(state, 's'))) if (!addresses.has(path)) findings.push(await stray(path));
  return { findings, bundles: bundles.length };
}

interface Look extends Partial<Finding> {
  readonly object: string;
  /** Where its shim listens. */
  readonly address?: string | undefined;
}

async function look(bundle: Bundle, reader: Reader, busy: boolean): Promise<Look> {
  const object = `bundle ${bundle.namespace}/${bundle.id}`;
  let bootstrap;
  try {
    bootstrap = bundle.readBootstrap();
    if (bundle.readDead() !== undefined) return { object };
    bundle.readExit();
  } catch (error) {
    return {
      object,
      problem: messageOf(error),
      kind: 'damaged',
      advice: 'it is left alone; use that version',
    };
  }
  if (bootstrap === undefined) {
    const problem = 'its record of the shim (bootstrap.json) is missing or damaged';
    const advice = 'the daemon looks for the shim by its sockets at its next start';
    return { object, problem, kind: busy ? 'note' : 'damaged', advice };
  }
  const { address } = bootstrap;
  if (address !== '' && !(await answers(address))) {
    const problem = 'its shim is gone: the daemon kills what is left of the container, and tells its end';
    return { object, address, problem, kind: 'note' };
  }
  if (!reader.has([bundle.namespace, Kind.Container, bundle.id])) {
    const advice = `\`moor -n ${bundle.namespace} tasks rm -f ${bundle.id}\` ends it`;
    return { object, address, problem: 'there is no container of that name', kind: 'note', advice };
  }
  return { object, address };
}

async function stray(path: string): Promise<Finding> {
  const object = `socket ${path}`;
  if (await answers(path)) {
    const problem =
      'its shim belongs to no bundle: the daemon ends it at its next start unless it has a container';
    return { object, problem, kind: 'note' };
  }
  const repair = { done: 'it has been removed', run: () => unlink(path) };
  return { object, problem: 'nobody listens there', kind: 'leftover', repair };
}

async function answers(address: string): Promise<boolean> {
  try {
    (await TtrpcClient.connect(address)).close();
    return true;
  } catch {
    return false;
  }
}

function socketsIn(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : [];
}
