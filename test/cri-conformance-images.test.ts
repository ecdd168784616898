/** What the public conformance suite for the CRI (critest) asks of images, with Debian's registry in place of the public one. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ContainerState, type Image } from '../proto/gen/runtime/v1/api.ts';
import { Code } from '../ttrpc/errors.ts';
import { Kubelet } from './harness/cri.ts';
import { type BusyboxOptions, type MadeImage, busyboxImage, ociArchive } from './harness/image.ts';
import { LocalRegistry } from './harness/registry.ts';

/** How many clients remove the same image at once. */
const CROWD = 5;

describe('images as the contract has them', { timeout: 240_000 }, () => {
  let registry: LocalRegistry;
  let kubelet: Kubelet;
  before(async () => {
    registry = await LocalRegistry.start();
    kubelet = await Kubelet.start();
  });
  after(async () => {
    await kubelet?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  /** Pushes an image of its own under these names. */
  async function published(options: BusyboxOptions, ...names: string[]): Promise<MadeImage> {
    const made = await busyboxImage(options);
    const archive = join(kubelet.daemon.directory, `${made.config.digest.slice(-12)}.tar`);
    ociArchive(archive, [[names[0]!], made]);
    const flags = ['copy', '-q', ...registry.skopeoFlags('dest'), `oci-archive:${archive}`];
    for (const name of names) execFileSync('skopeo', [...flags, `docker://${name}`]);
    return made;
  }
  const pull = async (image: string): Promise<string> =>
    (await kubelet.images.pullImage({ image: { image } })).imageRef;
  const status = async (image: string): Promise<Image | undefined> =>
    (await kubelet.images.imageStatus({ image: { image } })).image;
  const remove = (image: string) => kubelet.images.removeImage({ image: { image } });
  const unique = (mark: string): BusyboxOptions => ({ above: [{ mark }] });

  it('an image by its tag, without one, and by its digest has the names that it was pulled by', async () => {
    const name = registry.image('suite/names', '');
    const [tagged, latest] = [`${name}test`, `${name}latest`];
    const made = await published(unique('names'), tagged, latest);
    const digested = `${name.slice(0, -1)}@${made.manifest.digest}`;
    for (const [reference, tags] of [
      [tagged, [tagged]],
      [latest.replace(/:latest$/, ''), [latest]],
      [digested, []],
    ] as const) {
      const id = await pull(reference);
      const image = await status(reference);
      assert.deepEqual([image?.id, image?.repoTags, image?.repoDigests], [id, tags, [digested]]);
      assert.ok(image!.size > 0n);
      const { images } = await kubelet.images.listImages({});
      assert.deepEqual(
        images.filter((each) => each.id === id),
        [image],
      );
      for (const other of [id, ...image!.repoTags, ...image!.repoDigests])
        assert.deepEqual(await status(other), image, other);
      await remove(id);
      assert.equal(await status(reference), undefined);
      assert.ok(!(await kubelet.images.listImages({})).images.some((each) => each.id === id));
    }
  });

  it('one image with three tags is one, three images are three', async () => {
    const tags = ['1', '2', '3'].map((tag) => registry.image('suite/tags', tag));
    await published(unique('tags'), ...tags);
    const ids = new Set<string>();
    for (const tag of tags) ids.add(await pull(tag));
    assert.equal(ids.size, 1);
    const { images } = await kubelet.images.listImages({ filter: { image: { image: tags[1]! } } });
    assert.deepEqual(
      images.map(({ repoTags }) => repoTags.toSorted()),
      [tags],
    );
    await remove(tags[0]!);
    for (const tag of tags) assert.equal(await status(tag), undefined, 'removed with all its names');
    const others = await Promise.all(
      ['1', '2', '3'].map(async (number) => {
        const name = registry.image(`suite/image-${number}`);
        await published(unique(`image ${number}`), name);
        return name;
      }),
    );
    const found = await Promise.all(others.map(pull));
    assert.equal(new Set(found).size, 3);
    for (const [index, name] of others.entries()) {
      const image = await status(name);
      assert.deepEqual([image!.id, image!.repoTags], [found[index], [name]]);
      await remove(name);
    }
  });

  it('the user is told as a number or by its name, without the group', async () => {
    for (const [User, uid, username] of [
      ['1002', 1002n, ''],
      ['www-data', undefined, 'www-data'],
      ['1003:50', 1003n, ''],
      ['www-data:100', undefined, 'www-data'],
    ] as const) {
      const name = registry.image(`suite/user-${User.replace(':', '-')}`);
      await published({ config: { User, Cmd: ['sh'] }, ...unique(User) }, name);
      await pull(name);
      const image = await status(name);
      assert.deepEqual([image!.uid?.value, image!.username], [uid, username], User);
      await remove(name);
    }
  });

  it('many remove an image at once, and none finds it afterwards', async () => {
    const name = registry.image('suite/crowd');
    await published(unique('crowd'), name);
    const id = await pull(name);
    const seen = await Promise.all(
      Array.from({ length: CROWD }, async () => {
        await remove(id);
        return status(id);
      }),
    );
    assert.deepEqual(
      seen,
      Array.from({ length: CROWD }, () => undefined),
    );
    assert.equal(await status(name), undefined);
    for (let times = 0; times < 2; times += 1) await remove('0'.repeat(64));
  });

  it('a pull that its client has no time for is given up, and can be repeated', async () => {
    const name = registry.image('suite/late');
    await published(unique('late'), name);
    await assert.rejects(
      kubelet.images.pullImage({ image: { image: name } }, { signal: AbortSignal.timeout(1) }),
    );
    assert.match(await pull(name), /^sha256:/);
    await remove(name);
  });

  it('an image has one identifier everywhere, from whichever repository it has come', async () => {
    const [one, two] = [registry.image('suite/here', '1'), registry.image('suite/there', '1')];
    const options: BusyboxOptions = {
      config: { Cmd: ['sleep', '1000000'], Env: ['PATH=/bin'] },
      ...unique('same'),
    };
    await published(options, one, two);
    const id = await pull(one);
    assert.equal(await pull(two), id);
    assert.deepEqual([(await status(one))!.id, (await status(two))!.id], [id, id]);
    assert.equal((await status(id))!.repoDigests.length, 2);

    const pod = await kubelet.runPod('identity');
    const volume = { image: { image: two }, containerPath: '/volume', readonly: true };
    const containerId = await kubelet.run(pod, 'main', [], {
      image: { image: id, userSpecifiedImage: two },
      mounts: [volume],
    });
    const container = await kubelet.status(containerId);
    assert.deepEqual([container.state, container.imageId], [ContainerState.CONTAINER_RUNNING, id]);
    const known = (await status(id))!;
    assert.ok(known.repoTags.includes(one) && known.repoTags.includes(two));
    assert.equal(container.image!.image, known.repoTags[0], 'as people know it, not as kubelet has asked');
    assert.equal(container.image!.userSpecifiedImage, two);
    assert.equal(container.imageRef, known.repoDigests[0]);
    assert.equal(container.mounts[0]!.image!.imageRef, id);
    const { containers } = await kubelet.runtime.listContainers({ filter: { id: containerId } });
    assert.deepEqual(
      containers.map(({ image, imageId, imageRef }) => [image!.image, imageId, imageRef]),
      [[id, id, id]],
    );
    const cmd = ['/volume/bin/ls', '/volume'];
    const listing = await kubelet.runtime.execSync({ containerId, cmd, timeout: 60n });
    assert.equal(listing.exitCode, 0, 'a program of an image volume can be run');
    const none = kubelet.create(pod, 'none', [], { mounts: [{ ...volume, imageSubPath: 'not-there' }] });
    await assert.rejects(none, { code: Code.InvalidArgument });
    await kubelet.removePod(pod.id);
    await remove(id);
    assert.deepEqual(kubelet.left(), []);
  });
});
