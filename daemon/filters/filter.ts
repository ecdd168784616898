/**
 * Filters that select objects by their fields, in containerd's syntax:
 *
 *     selectors := selector ("," selector)*          all must hold
 *     selector  := fieldpath (("==" | "!=" | "~=") value)?
 *     fieldpath := field ("." field)*
 *     field     := quoted | [A-Za-z0-9_]+
 *     value     := quoted | [^\s,]+
 *
 * Several filters are alternatives.
 */
import { parseSelectors } from './parser.ts';

/**
 * Looks a field up in the object under test. Undefined when it has no such field; an empty field counts as none, except in
 * maps, whose keys are there or not.
 */
export type Fields = (path: readonly string[]) => string | undefined;

export type Selector =
  | { readonly path: readonly string[]; readonly operator: 'present' }
  | { readonly path: readonly string[]; readonly operator: '=='; readonly value: string }
  | { readonly path: readonly string[]; readonly operator: '!='; readonly value: string }
  | { readonly path: readonly string[]; readonly operator: '~='; readonly value: RegExp };

/** True for an object that the filter selects. */
export type Filter = (fields: Fields) => boolean;

const everything: Filter = () => true;

/**
 * Reads a list of filters. An empty list, and an empty filter in it, select everything.
 *
 * @throws RpcError InvalidArgument that shows the place of the mistake
 */
export function parseFilters(filters: readonly string[]): Filter {
  if (filters.length === 0 || filters.includes('')) {
    // The others may still be wrong, and must not become right by the company they are in.
    for (const filter of filters) if (filter !== '') parseSelectors(filter);
    return everything;
  }
  const alternatives = filters.map(parseSelectors);
  return (fields) => alternatives.some((selectors) => selectors.every((selector) => holds(selector, fields)));
}

function holds(selector: Selector, fields: Fields): boolean {
  const value = fields(selector.path);
  if (selector.operator === 'present') return value !== undefined;
  if (selector.operator === '==') return value === selector.value;
  // A field that is not there is compared as if it were empty, by these two only.
  return selector.operator === '!=' ? (value ?? '') !== selector.value : selector.value.test(value ?? '');
}

/** A field that counts as absent when it is empty. */
export function present(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}

/** Looks up what is left of a path as one key of a map: `labels.a.b` is the label `a.b`. */
export function inMap(map: { readonly [key: string]: string }, path: readonly string[]): string | undefined {
  const key = path.join('.');
  return Object.hasOwn(map, key) ? map[key] : undefined;
}
