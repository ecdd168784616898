/** What a configuration file may hold: each kind of value checks what it is given and says what it expected. */

/** A value that does not fit, with the path of keys that leads to it. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError';
  readonly path: readonly string[];

  constructor(path: readonly string[], message: string) {
    super(message);
    this.path = path;
  }
}

/** Reads one value. `undefined` stands for an absent key, which gets its default. */
export interface Kind<T> {
  read(value: unknown, path: readonly string[]): T;
}

export type Of<K> = K extends Kind<infer T> ? T : never;

export function expected(what: string, value: unknown, path: readonly string[]): SchemaError {
  return new SchemaError(path, `${nameOf(path)} must be ${what}, not ${shown(value)}`);
}

/** A key as it is written in a file: `plugins."io.containerd.gc.v1.scheduler".startup_delay`. */
export function nameOf(path: readonly string[]): string {
  return path.map((key) => (/^[\w-]+$/.test(key) ? key : JSON.stringify(key))).join('.');
}

function shown(value: unknown): string {
  if (Array.isArray(value)) return 'an array';
  if (value instanceof Date) return 'a date';
  return typeof value === 'object' ? 'a table' : JSON.stringify(value, bigintAsNumber);
}

function bigintAsNumber(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value;
}

export function text(byDefault: string): Kind<string> {
  return {
    read(value = byDefault, path) {
      if (typeof value !== 'string') throw expected('a string', value, path);
      return value;
    },
  };
}

/** One of a few words. */
export function choice<T extends string>(words: readonly T[], byDefault: T): Kind<T> {
  return {
    read(value = byDefault, path) {
      const word = words.find((word) => word === value);
      if (word === undefined) throw expected(`one of ${words.join(', ')}`, value, path);
      return word;
    },
  };
}

export function integer(byDefault: number, least: number, most: number): Kind<number> {
  return {
    read(value = byDefault, path) {
      if (typeof value !== 'number' || !Number.isInteger(value)) throw expected('an integer', value, path);
      if (value < least || value > most) throw expected(`between ${least} and ${most}`, value, path);
      return value;
    },
  };
}

export function number(byDefault: number): Kind<number> {
  return {
    read(value = byDefault, path) {
      if (typeof value !== 'number' || !Number.isFinite(value)) throw expected('a number', value, path);
      return value;
    },
  };
}

export function flag(byDefault: boolean): Kind<boolean> {
  return {
    read(value = byDefault, path) {
      if (typeof value !== 'boolean') throw expected('true or false', value, path);
      return value;
    },
  };
}

/** Empty, or an absolute path. */
export function optionalPath(): Kind<string> {
  return {
    read(value = '', path) {
      if (typeof value !== 'string') throw expected('a string', value, path);
      if (value !== '' && !value.startsWith('/')) throw expected('an absolute path', value, path);
      return value;
    },
  };
}

/**
 * A key of containerd's that says what is not to be had here. It may be there with a value that asks for nothing, so that files
 * written for containerd can be read, and is forgotten then.
 *
 * @param idle values that ask for nothing
 * @param instead what a reader of the error should know
 */
export function absent(idle: readonly unknown[], instead: string): Kind<undefined> {
  return {
    read(value, path) {
      if (value === undefined || idle.some((each) => JSON.stringify(each) === JSON.stringify(value)))
        return undefined;
      throw new SchemaError(path, `${nameOf(path)} is not supported: ${instead}`);
    },
  };
}

/** Strings that match, in any number. */
export function texts(
  rule: RegExp,
  what: string,
  byDefault: readonly string[] = [],
): Kind<readonly string[]> {
  return {
    read(value = byDefault, path) {
      if (!Array.isArray(value)) throw expected(`an array of ${what}s`, value, path);
      for (const item of value as unknown[]) {
        if (typeof item !== 'string' || !rule.test(item)) {
          throw new SchemaError(path, `${nameOf(path)} holds ${shown(item)}, which is not a ${what}`);
        }
      }
      return value as string[];
    },
  };
}

const UNITS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  ns: 1e-6,
};

/** A duration as Go writes them, `1m30s`. It stays text, as it is in the file; see `milliseconds`. */
export function duration(byDefault: string): Kind<string> {
  return {
    read(value = byDefault, path) {
      if (typeof value !== 'string' || milliseconds(value) === undefined) {
        throw expected('a duration such as "2s"', value, path);
      }
      return value;
    },
  };
}

/** The length of a duration; undefined when the text is none. */
export function milliseconds(text: string): number | undefined {
  if (text === '0') return 0;
  if (!/^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|\u00b5s|ns))+$/.test(text)) return undefined;
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)([a-z\u00b5]+)/g))
    sum += Number(number) * UNITS[unit!]!;
  return sum;
}

type Fields = { readonly [key: string]: Kind<unknown> };

function keysOf(value: unknown, path: readonly string[]): { readonly [key: string]: unknown } {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Date) {
    throw expected('a table', value, path);
  }
  return value as { readonly [key: string]: unknown };
}

/** A table with these keys and no other. */
export function table<F extends Fields>(fields: F): Kind<{ readonly [K in keyof F]: Of<F[K]> }> {
  return {
    read(value = {}, path) {
      const given = keysOf(value, path);
      for (const key of Object.keys(given)) {
        if (!Object.hasOwn(fields, key)) {
          throw new SchemaError([...path, key], `unknown key ${nameOf([...path, key])}`);
        }
      }
      const entries = Object.entries(fields)
        .map(([key, kind]) => [key, kind.read(given[key], [...path, key])] as const)
        .filter(([, value]) => value !== undefined);
      return Object.fromEntries(entries) as { readonly [K in keyof F]: Of<F[K]> };
    },
  };
}

/** A table of which nothing is kept: all its keys are `absent`. */
export function absentTable(fields: { readonly [key: string]: Kind<undefined> }): Kind<undefined> {
  return {
    read(value, path) {
      table(fields).read(value, path);
      return undefined;
    },
  };
}

/** A table with keys of the reader's choice, all of the same kind. */
export function tableOf<T>(rule: RegExp, kind: Kind<T>): Kind<{ readonly [key: string]: T }> {
  return {
    read(value = {}, path) {
      const entries = Object.entries(keysOf(value, path)).map(([key, item]) => {
        if (!rule.test(key)) throw new SchemaError([...path, key], `${nameOf([...path, key])} is no name`);
        return [key, kind.read(item, [...path, key])];
      });
      return Object.fromEntries(entries) as { readonly [key: string]: T };
    },
  };
}

/** Tables, in any number. */
export function tables<T>(kind: Kind<T>): Kind<readonly T[]> {
  return {
    read(value = [], path) {
      if (!Array.isArray(value)) throw expected('an array of tables', value, path);
      return (value as unknown[]).map((item, index) => kind.read(item, [...path, String(index)]));
    },
  };
}
