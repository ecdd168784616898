import { type Image, ImagesDefinition } from '../../proto/gen/containerd/services/images.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { Collections } from '../gc/scheduler.ts';
import { parseDigest } from '../content/digest.ts';
import { leaseOf, namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import type { ImageStore } from '../images/store.ts';

export function imagesService(store: ImageStore, collections: Collections): Service {
  return service(ImagesDefinition, {
    get: async ({ name }, context) => ({ image: store.get(namespaceOf(context), name) }),

    list: async ({ filters }, context) => ({ images: store.list(namespaceOf(context), filters) }),

    create: async ({ image }, context) => ({
      image: await store.create(namespaceOf(context), given(image), leaseOf(context)),
    }),

    update: async ({ image, updateMask = [] }, context) => ({
      image: await store.update(namespaceOf(context), given(image), updateMask),
    }),

    async delete({ name, sync, target }, context) {
      const digest = target === undefined || target.digest === '' ? '' : parseDigest(target.digest);
      await store.delete(namespaceOf(context), name, leaseOf(context), digest);
      if (sync) await collections.collect(context.signal);
      return {};
    },
  });
}

function given(image: Image | undefined): Image {
  if (image === undefined || image.name === '') throw invalidArgument('Image.Name required');
  return image;
}
