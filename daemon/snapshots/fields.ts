/** What filters see of a snapshot, and field masks change. */
import { invalidArgument } from '../../ttrpc/errors.ts';
import { type Fields, inMap } from '../filters/filter.ts';
import { set } from '../metadata/labels.ts';
import { type Info, Kind } from './snapshotter.ts';

type LabelMap = Info['labels'];

/** Labels with the change that a path names: one of them, or all. @throws RpcError InvalidArgument for another path */
export function withPath(name: string, given: LabelMap): (labels: LabelMap, path: string) => LabelMap {
  return (labels, path) => {
    if (path === 'labels') return given;
    if (!path.startsWith('labels.')) {
      throw invalidArgument(`cannot update "${path}" field on snapshot "${name}": invalid argument`);
    }
    const key = path.slice('labels.'.length);
    return set(labels, { [key]: Object.hasOwn(given, key) ? given[key]! : '' });
  };
}

const kinds: Readonly<Record<Kind, string | undefined>> = {
  [Kind.UNKNOWN]: undefined,
  [Kind.ACTIVE]: 'active',
  [Kind.VIEW]: 'view',
  [Kind.COMMITTED]: 'committed',
};

export function fieldsOf(info: Info): Fields {
  return ([first = '', ...rest]) => {
    switch (first) {
      case 'kind':
        return kinds[info.kind];
      case 'name':
        return info.name;
      case 'parent':
        return info.parent;
      case 'labels':
        return inMap(info.labels, rest);
      default:
        return undefined;
    }
  };
}
