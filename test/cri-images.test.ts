/** `runtime.v1.ImageService` between a kubelet, the daemon and Debian's registry. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code } from '../ttrpc/errors.ts';
import { BUSYBOX, Kubelet } from './harness/cri.ts';
import { pauseProgram } from '../native/native.ts';
import { busyboxImage, makeImage, ociArchive } from './harness/image.ts';
import { LocalRegistry } from './harness/registry.ts';
import { failureOf } from './harness/rpc.ts';

const LIMIT = { timeout: 240_000 };
const empty = {
  username: '',
  password: '',
  auth: '',
  serverAddress: '',
  identityToken: '',
  registryToken: '',
};

const refused = (code: Code) => ({ code });

test('images are pulled with credentials, listed by all their names, and removed', LIMIT, async () => {
  await using registry = await LocalRegistry.start({ password: true });
  await using kubelet = await Kubelet.start();
  const { images } = kubelet;
  const made = await busyboxImage({ config: { User: '1002:50' } });
  const [one, two] = [registry.image('fleet/app', '1'), registry.image('fleet/app', '2')];
  const archive = ociArchive(join(kubelet.daemon.directory, 'app.tar'), [[one], made]);
  for (const name of [one, two])
    execFileSync('skopeo', [
      'copy',
      '-q',
      ...registry.skopeoFlags('dest'),
      `oci-archive:${archive}`,
      `docker://${name}`,
    ]);
  const [username = '', ...rest] = registry.user!.split(':');
  const password = rest.join(':');

  await assert.rejects(images.pullImage({ image: { image: one } }), refused(Code.Unauthenticated));
  const wrong = { ...empty, username, password: 'secret-guess' };
  await assert.rejects(images.pullImage({ image: { image: one }, auth: wrong }), (error: Error) => {
    assert.doesNotMatch(error.message, /secret-guess/);
    return (error as { code?: unknown }).code === Code.Unauthenticated;
  });
  const elsewhere = { ...empty, username, password, serverAddress: 'https://registry.example' };
  await assert.rejects(
    images.pullImage({ image: { image: one }, auth: elsewhere }),
    refused(Code.Unauthenticated),
  );

  const { imageRef: id } = await images.pullImage({
    image: { image: one },
    auth: { ...empty, username, password },
  });
  assert.match(id, /^sha256:[0-9a-f]{64}$/);
  assert.equal(id, made.config.digest);
  const encoded = Buffer.from(registry.user!).toString('base64');
  const auth = { ...empty, auth: encoded, serverAddress: registry.host };
  assert.equal((await images.pullImage({ image: { image: two }, auth })).imageRef, id);
  const digested = `${registry.host}/fleet/app@${made.manifest.digest}`;
  assert.equal((await images.pullImage({ image: { image: digested }, auth })).imageRef, id);

  for (const name of [id, id.slice('sha256:'.length), one, digested]) {
    const { image, info } = await images.imageStatus({ image: { image: name }, verbose: true });
    assert.equal(image?.id, id, name);
    assert.deepEqual(image.repoTags.toSorted(), [one, two]);
    assert.deepEqual(image.repoDigests, [digested]);
    assert.deepEqual([image.uid?.value, image.username, image.pinned], [1002n, '', false]);
    assert.ok(image.size > 100_000n);
    assert.equal((JSON.parse(info['info']!) as { imageSpec: { os: string } }).imageSpec.os, 'linux');
  }
  const all = await images.listImages({});
  assert.equal(all.images.length, 2, 'and the one that was imported');
  const one_ = await images.listImages({ filter: { image: { image: two } } });
  assert.deepEqual(
    one_.images.map((image) => image.id),
    [id],
  );
  assert.deepEqual((await images.listImages({ filter: { image: { image: 'none' } } })).images, []);
  let streamed = 0;
  for await (const { images: some } of images.streamImages({})) streamed += some.length;
  assert.equal(streamed, 2);

  await kubelet.restart();
  assert.equal((await kubelet.images.imageStatus({ image: { image: one } })).image?.id, id);
  for (let times = 0; times < 2; times += 1) await kubelet.images.removeImage({ image: { image: one } });
  assert.equal((await kubelet.images.imageStatus({ image: { image: id } })).image, undefined);
  assert.doesNotMatch(await kubelet.ctr().ok('images', 'ls', '-q'), /fleet/);
});

test(
  'a container tells which image it is of by the names that this has now, and the list by its id',
  LIMIT,
  async () => {
    await using kubelet = await Kubelet.start();
    const { id } = (await kubelet.images.imageStatus({ image: { image: BUSYBOX } })).image!;
    const pod = await kubelet.runPod('names');
    const forever = ['sleep', '1000000'];
    const asked = { image: { image: id, userSpecifiedImage: BUSYBOX } };
    const containerId = await kubelet.run(pod, 'main', forever, asked);
    const names = async () => {
      const { image, imageRef, imageId } = await kubelet.status(containerId);
      assert.equal(imageId, id);
      // Whichever call it is that kubelet asks.
      const { containersStatuses } = await kubelet.runtime.podSandboxStatus({ podSandboxId: pod.id });
      assert.deepEqual(
        containersStatuses.map((status) => [status.image?.image, status.imageRef]),
        [[image?.image, imageRef]],
      );
      const { containers } = await kubelet.runtime.listContainers({});
      // It collects the images whose ids it does not find here.
      assert.deepEqual(
        containers.map((each) => [each.image?.image, each.imageRef, each.imageId]),
        [[id, id, id]],
      );
      return [image!.image, imageRef];
    };
    assert.deepEqual(await names(), [BUSYBOX, id], 'nobody knows it by a digest');
    const line = await kubelet.ctr().ok('images', 'ls', `name==${BUSYBOX}`);
    const digested = `registry.example/busybox@${/sha256:[0-9a-f]{64}/.exec(line)![0]}`;
    await kubelet.ctr().ok('images', 'tag', BUSYBOX, digested);
    assert.deepEqual(await names(), [BUSYBOX, digested]);
    await kubelet.restart();
    assert.deepEqual(await names(), [BUSYBOX, digested]);
    await kubelet.ctr().ok('images', 'rm', BUSYBOX);
    assert.deepEqual(await names(), [id, digested]);
    await kubelet.images.removeImage({ image: { image: id } });
    assert.deepEqual(await names(), [id, id]);
  },
);

test('what is not there, not named or not to be had is said as kubelet expects it', LIMIT, async () => {
  await using kubelet = await Kubelet.start({ cri: `sandbox_image = "${BUSYBOX}"` });
  const { images } = kubelet;
  assert.deepEqual(await images.imageStatus({ image: { image: 'no.such/image:1' } }), {
    image: undefined,
    info: {},
  });
  await images.removeImage({ image: { image: 'no.such/image:1' } });
  for (const call of [
    () => images.imageStatus({}),
    () => images.removeImage({ image: { image: '' } }),
    () => images.pullImage({}),
    () => images.pullImage({ image: { image: 'BAD reference' } }),
    () => images.pullImage({ image: { image: '127.0.0.1:1/a' }, auth: { ...empty, auth: 'bm8gY29sb24=' } }),
  ])
    await assert.rejects(call, refused(Code.InvalidArgument));
  await assert.rejects(
    images.pullImage({ image: { image: '127.0.0.1:1/fleet/none:1' } }),
    refused(Code.Unavailable),
  );

  const { imageFilesystems, containerFilesystems } = await images.imageFsInfo({});
  const [filesystem] = imageFilesystems;
  assert.match(filesystem!.fsId!.mountpoint, /\/snapshots\/overlayfs$/);
  assert.ok(filesystem!.timestamp > 1_700_000_000_000_000_000n);
  assert.ok(filesystem!.usedBytes!.value > 100_000n && filesystem!.inodesUsed!.value > 0n);
  assert.deepEqual(containerFilesystems, imageFilesystems);
});

test(
  'the configured image that holds pods is pulled when it is missing, pinned, and stays',
  LIMIT,
  async () => {
    const registry = await LocalRegistry.start();
    const name = registry.image('fleet/pause', '9');
    const entry = { Entrypoint: ['/pause'] };
    const made = await makeImage([{ pause: pauseProgram() }], { config: entry });
    await using kubelet = await Kubelet.start({ cri: `sandbox_image = "${name}"` });
    const isPinned = async () =>
      (await kubelet.images.listImages({ filter: { image: { image: name } } })).images.map(
        ({ pinned }) => pinned,
      );
    {
      await using _ = registry;
      const missing = await failureOf(kubelet.runPod('too-early'));
      assert.match(missing.message, new RegExp(`failed to get sandbox image "${name}": .*not found`));
      assert.deepEqual(kubelet.left(), []);
      const archive = ociArchive(join(kubelet.daemon.directory, 'pause.tar'), [[name], made]);
      const to = [...registry.skopeoFlags('dest'), `oci-archive:${archive}`, `docker://${name}`];
      execFileSync('skopeo', ['copy', '-q', ...to]);
      const pods = await Promise.all(['one', 'two'].map((pod) => kubelet.runPod(pod)));
      const { info } = await kubelet.runtime.podSandboxStatus({ podSandboxId: pods[0]!.id, verbose: true });
      assert.equal((JSON.parse(info['info']!) as { image: string }).image, name);
      assert.deepEqual(await isPinned(), [true]);
      for (const { id } of pods) await kubelet.removePod(id);
    }
    // Nobody uses it now and the registry has gone: it is there all the same, after collections and a restart.
    await kubelet.ctr().ok('content', 'prune', 'references');
    await kubelet.restart();
    assert.deepEqual(await isPinned(), [true]);
    const { id } = await kubelet.runPod('later');
    await kubelet.removePod(id);
  },
);

test('a pull that brings nothing any more is given up', LIMIT, async () => {
  const silent = createServer().listen(0, '127.0.0.1');
  await once(silent, 'listening');
  try {
    const { port } = silent.address() as AddressInfo;
    await using kubelet = await Kubelet.start({ cri: 'image_pull_progress_timeout = "1s"' });
    const failure = await failureOf(
      kubelet.images.pullImage({ image: { image: `127.0.0.1:${port}/fleet/slow:1` } }),
    );
    assert.match(failure.message, /fleet\/slow:1: nothing has come for 1 s/);
    assert.equal(failure.code, Code.DeadlineExceeded);
  } finally {
    silent.close();
  }
});
