/**
 * A store that collects its garbage over and over while it makes more, to be killed by the tests at any moment.
 *
 *   node sweeper.ts DIRECTORY SEED
 *
 * Prints a line when it has begun. Image `kept` leads to a manifest and its layers, which must be there after every kill.
 */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { NamespacedContent } from '../../content/namespaced-content.ts';
import { ContentStore } from '../../content/store.ts';
import { ImageStore } from '../../images/store.ts';
import { parseNamespace } from '../../identifiers.ts';
import { openLog } from '../../log.ts';
import { MetadataStore } from '../../metadata/store.ts';
import { Collector } from '../collector.ts';
import { contentResource, ingestResource } from '../content.ts';
import { imageResource, leaseResource } from '../records.ts';

const [directory, seed] = process.argv.slice(2) as [string, string];
const namespace = parseNamespace('killed');
const metadata = await MetadataStore.open(join(directory, 'metadata'));
const { database } = metadata;
const content = new NamespacedContent(database, await ContentStore.open(join(directory, 'content')));
const images = new ImageStore(database, { publish: () => undefined });
const resources = [
  leaseResource,
  imageResource(() => undefined),
  ingestResource(content),
  contentResource(content),
];
const collector = new Collector(database, resources, openLog('fatal'));

/** An image of three blobs. */
async function pull(name: string): Promise<void> {
  const layers = await Promise.all(
    [1, 2].map((index) =>
      content.put(namespace, `${name}-${index}`, Buffer.alloc(20_000, `${name} ${index}`)),
    ),
  );
  const labels = Object.fromEntries(
    layers.map((digest, index) => [`containerd.io/gc.ref.content.l.${index}`, digest]),
  );
  const manifest = await content.put(namespace, name, Buffer.from(`manifest of ${name}`), { labels });
  const target = { mediaType: 'application/json', digest: manifest, size: 1n, annotations: {} };
  if (images.find(namespace, name) === undefined)
    await images.create(namespace, { name, labels: {}, target });
}

await pull('kept');
writeSync(1, 'begun\n');
for (let round = 0; ; round += 1) {
  const names = Array.from({ length: 4 }, (_, index) => `i${seed}-${round}-${index}`);
  const pulling = Promise.all(names.map(pull));
  await collector.collect();
  await pulling;
  await Promise.all(names.map((name) => images.delete(namespace, name)));
  await collector.collect();
}
