/** Configurations of pods and containers as crictl takes them: JSON or YAML with the contract's own names for fields. */
import { readFile } from 'node:fs/promises';
import type { ContainerConfig, PodSandboxConfig } from '../../client/client.ts';
import { Failure } from '../failure.ts';

/** Fields whose keys are the user's. */
const MAPS: ReadonlySet<string> = new Set(['labels', 'annotations', 'sysctls', 'unified']);

/** @throws Failure for a file that cannot be read, or is none of a pod */
export async function podConfig(file: string): Promise<PodSandboxConfig> {
  // What is left out takes its default when it is sent.
  return named(file, await read(file)) as PodSandboxConfig;
}

/** @throws Failure for a file that cannot be read, or is none of a container */
export async function containerConfig(file: string): Promise<ContainerConfig> {
  return named(file, await read(file)) as ContainerConfig;
}

/** @throws Failure for what has no name, as everything of Kubernetes has one */
function named(file: string, value: object): object {
  const { metadata } = value as { readonly metadata?: { readonly name?: unknown } };
  if (typeof metadata?.name !== 'string' || metadata.name === '')
    throw new Failure(`${file}: metadata.name is missing`);
  return value;
}

async function read(file: string): Promise<object> {
  let text: string;
  try {
    text = await readFile(file === '-' ? '/dev/stdin' : file, 'utf8');
  } catch (error) {
    throw new Failure(`cannot read ${file}: ${(error as Error).message}`);
  }
  let value: unknown;
  try {
    value = await parsed(text);
  } catch (error) {
    throw new Failure(`${file} is neither JSON nor YAML: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Failure(`${file} is no object of JSON or YAML`);
  return converted(value) as object;
}

async function parsed(text: string): Promise<unknown> {
  try {
    return JSON.parse(text);
  } catch {
    const { parse } = await import('yaml');
    return parse(text, { logLevel: 'error' });
  }
}

/** `log_directory` as `logDirectory`; whole numbers that only 64 bits hold were written as text by some, and stay. */
function converted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(converted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => {
      const name = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
      return [name, MAPS.has(name) ? field : converted(field)];
    }),
  );
}
