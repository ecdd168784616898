/** How an image says it is to be run (image-spec, config.md). */
import { invalidArgument } from '../ttrpc/errors.ts';

/** The part of an image's configuration that says how to run it (image-spec, config.md). */
export interface RunConfig {
  /** Empty for root. */
  readonly user: string;
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** Empty for the root directory. */
  readonly workingDir: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Empty for SIGTERM. */
  readonly stopSignal: string;
}

/** Written by whoever made the image: nothing is taken for granted. */
export type ImageDocument = { readonly [key: string]: unknown };

/** What is read of it. @throws RpcError InvalidArgument for what is no such configuration */
export function configOf(json: unknown): RunConfig {
  const config = objectOf(json);
  const labels = Object.entries(objectOf(config['Labels'])).map(([key, value]) => [key, textOf(value)]);
  return {
    user: textOf(config['User']),
    env: textsOf(config['Env']),
    entrypoint: textsOf(config['Entrypoint']),
    cmd: textsOf(config['Cmd']),
    workingDir: textOf(config['WorkingDir']),
    labels: Object.fromEntries(labels),
    stopSignal: textOf(config['StopSignal']),
  };
}

/** @throws RpcError InvalidArgument for anything but an object or nothing */
export function objectOf(value: unknown): ImageDocument {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as ImageDocument;
  if (value === undefined || value === null) return {};
  throw invalidArgument('its configuration has a value where an object belongs');
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value === undefined || value === null) return '';
  throw invalidArgument('its configuration has a value where a text belongs');
}

/** @throws RpcError InvalidArgument for anything but a list of texts or nothing */
export function textsOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.map(textOf);
  if (value === undefined || value === null) return [];
  throw invalidArgument('its configuration has a value where a list belongs');
}
