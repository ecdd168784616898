/** Where content came from: by this a push knows what a registry has in another repository. */
import { parseDigest } from '../content/digest.ts';
import type { NamespacedContent } from '../content/namespaced-content.ts';
import type { Namespace } from '../identifiers.ts';
import { addLabels } from './graph.ts';

/** Bytes; a label may have a few more. */
const MAX_SOURCE = 4000;

const keyFor = (host: string): string => `containerd.io/distribution.source.${host}`;

/** The repositories of a registry that are known to have the content. */
export function sourcesOf(
  content: NamespacedContent,
  namespace: Namespace,
  digest: string,
  host: string,
): string[] {
  const value = content.info(namespace, parseDigest(digest)).labels[keyFor(host)] ?? '';
  return value.split(',').filter((repository) => repository !== '');
}

export async function addSource(
  content: NamespacedContent,
  namespace: Namespace,
  digest: string,
  { host, repository }: { readonly host: string; readonly repository: string },
): Promise<void> {
  const known = sourcesOf(content, namespace, digest, host);
  if (known.includes(repository)) return;
  const key = keyFor(host);
  const value = [...known, repository].sort().join(',');
  if (key.length + value.length <= MAX_SOURCE) await addLabels(content, namespace, digest, { [key]: value });
}
