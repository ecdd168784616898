/** The same container as two clients make it. */
import assert from 'node:assert/strict';
import type { Ctr } from './ctr.ts';
import type { Moor } from './moor.ts';

interface Info {
  readonly Labels: object;
  readonly Image: string;
  readonly Snapshotter: string;
  readonly Runtime: { readonly Name: string };
  readonly Spec: {
    ociVersion?: string;
    readonly linux: {
      readonly resources: { readonly cpu?: { shares?: number } };
      readonly seccomp?: { readonly syscalls?: readonly Rule[] };
    };
  };
}

interface Rule {
  readonly names: readonly string[];
  readonly args?: readonly object[];
}

/**
 * Has both make a container of an image with the same flags, and compares what the daemon stores of them.
 *
 * @param how `run` takes more flags than `create`, but needs a runtime that can do what they say
 */
export async function expectSameSpec(
  ctr: Ctr,
  moor: Moor,
  image: string,
  { run, create }: { readonly run?: readonly string[]; readonly create?: readonly string[] },
): Promise<void> {
  const command =
    run === undefined ? ['containers', 'create', ...(create ?? [])] : ['run', '-d', '--null-io', ...run];
  const infos: unknown[] = [];
  for (const client of [ctr, moor]) {
    const made = await client.call([...command, image, 'same', 'true']);
    try {
      infos.push(comparable(JSON.parse(await ctr.ok('containers', 'info', 'same')) as Info));
    } catch (error) {
      throw new Error(`${command.join(' ')}: ${made.stderr}`, { cause: error });
    } finally {
      await ctr.remove('same');
    }
  }
  assert.deepEqual(infos[1], infos[0], `${image} ${command.join(' ')}`);
}

/** Without what is of the moment, and with sets in order. */
function comparable({ Labels, Image, Snapshotter, Runtime, Spec }: Info): unknown {
  const { cpu } = Spec.linux.resources;
  // `ctr run` always writes the kernel's default.
  if (cpu?.shares === 1024) delete cpu.shares;
  delete Spec.ociVersion;
  return sorted({ Labels, Image, Snapshotter, runtime: Runtime.Name, spec: withRules(Spec) });
}

/** Rules of one action, condition by condition: which list a call stands in does not matter. */
function withRules(spec: Info['Spec']): object {
  const rules = spec.linux.seccomp?.syscalls?.flatMap(({ names, ...rest }) =>
    names.map((name) => ({ ...rest, name, args: rest.args ?? [] })),
  );
  if (rules === undefined) return spec;
  const unique = [...new Set(rules.map((rule) => JSON.stringify(sorted(rule))))];
  return { ...spec, linux: { ...spec.linux, seccomp: { ...spec.linux.seccomp, syscalls: unique } } };
}

/** Lists whose order has a meaning to the runtime. */
const ORDERED = new Set(['args', 'mounts', 'devices']);

/** With fields by name, lists as sets but for those in order, and nothing that is empty. */
function sorted(value: unknown, key = ''): unknown {
  if (Array.isArray(value)) {
    const items = value.map((item) => sorted(item));
    return ORDERED.has(key) ? items : items.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  }
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value)
    .filter(([, field]) => !isEmpty(field))
    .map(([name, field]) => [name, sorted(field, name)] as const)
    .filter(([, field]) => !isEmpty(field))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields);
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === '' || value === false) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}
