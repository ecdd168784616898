/** Containers of images by the SDK, most of all what cannot be run: images are written by strangers. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { type Client, Code, connect, isCode } from './client.ts';
import { namespace, Peer, peers, textOf } from './peer.test.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar';

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

for (const name of peers) {
  suite(`containers of images, client of ${name}`, { timeout: 120_000 }, () => {
    let peer: Peer;
    let client: Client;
    let layer: Buffer;
    let held: Client;
    before(async () => {
      peer = await Peer.start(name);
      client = await connect({ address: peer.address, namespace });
      await client.leases.create({ id: 'hold' });
      held = client.withLease('hold');
      layer = execFileSync('tar', ['-C', peer.rootfs, '-cf', '-', '.'], { maxBuffer: 1 << 28 });
    });
    after(async () => {
      client?.close();
      await peer?.[Symbol.asyncDispose]();
    });

    const put = async (mediaType: string, value: Buffer | object) => {
      const bytes = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value));
      const digest = await held.content.write(`put-${digestOf(bytes)}`, bytes, { expected: digestOf(bytes) });
      return { mediaType, digest, size: bytes.length };
    };
    const putConfig = (config: unknown, diffIds: unknown = [digestOf(layer)]) =>
      put(CONFIG, {
        os: 'linux',
        architecture: 'amd64',
        config,
        rootfs: { type: 'layers', diff_ids: diffIds },
      });
    const putManifest = async (config: object, layers?: unknown) =>
      put(MANIFEST, { schemaVersion: 2, config, layers: layers ?? [await put(LAYER, layer)] });
    const named = async (image: string, { mediaType, digest, size }: Awaited<ReturnType<typeof put>>) => {
      await client.images.create({
        name: image,
        target: { mediaType, digest, size: BigInt(size), annotations: {} },
      });
      return image;
    };

    test('it runs, with the arguments it is given after those of its entry point, and is removed whole', async () => {
      const config = {
        Entrypoint: ['echo', 'entry'],
        Cmd: ['command'],
        User: 'sailor',
        Labels: { part: 'hull' },
      };
      const image = await named('fine', await putManifest(await putConfig(config)));
      const container = await client.containers.createFromImage('one', image, {
        spec: { command: ['mine'] },
        labels: { own: '1' },
      });
      assert.deepEqual(container.labels, {
        part: 'hull',
        own: '1',
        'io.containerd.image.config.stop-signal': 'SIGTERM',
      });
      assert.deepEqual(container.spec.process?.user, { uid: 1000, gid: 1001, additionalGids: [1001, 1002] });
      assert.equal(container.info.image, 'fine');
      const task = await container.createTask({ stdio: { fifoDirectory: peer.fifoDirectory } });
      const output = textOf(task.stdout);
      await task.start();
      assert.equal((await task.wait()).code, 0);
      assert.equal(await output, 'entry mine\n');
      // Neither while it has a task nor without saying so is its root filesystem taken from it.
      await assert.rejects(container.delete(), (error) => isCode(error, Code.FailedPrecondition));
      assert.equal((await client.snapshots().list(['name==one'])).length, 1);
      await task.delete();
      await container.delete();
      assert.deepEqual(await client.snapshots().list(['name==one']), []);
      assert.deepEqual(
        (await client.leases.list()).map(({ id }) => id),
        ['hold'],
      );
    });

    test('an id that is taken is named as such, and what has it is not disturbed', async () => {
      await using container = await client.containers.createFromImage('taken', 'fine');
      await assert.rejects(client.containers.createFromImage('taken', 'fine'), (error) => {
        assert.ok(isCode(error, Code.AlreadyExists));
        assert.match(error.message, /container "taken"/);
        return true;
      });
      assert.equal((await container.mounts()).length, 1);
    });

    test('what is no image, not whole, or not what it says is refused and leaves nothing', async () => {
      const good = await putConfig({ Cmd: ['true'] });
      const other = execFileSync('tar', ['-C', '/etc', '-cf', '-', 'hostname']);
      const missing = { mediaType: LAYER, digest: digestOf(Buffer.from('nowhere')), size: 7 };
      const images: readonly (readonly [
        name: string,
        target: Awaited<ReturnType<typeof put>>,
        code: Code,
      ])[] = [
        ['no-image', await put(LAYER, Buffer.from('x')), Code.InvalidArgument],
        ['no-json', await put(MANIFEST, Buffer.from('{')), Code.InvalidArgument],
        ['no-config', await put(MANIFEST, { layers: [] }), Code.InvalidArgument],
        ['no-command', await putManifest(await putConfig({})), Code.InvalidArgument],
        ['bad-env', await putManifest(await putConfig({ Cmd: ['true'], Env: 'A=1' })), Code.InvalidArgument],
        ['bad-cmd', await putManifest(await putConfig({ Cmd: [1] })), Code.InvalidArgument],
        ['bad-config', await putManifest(await putConfig('text')), Code.InvalidArgument],
        ['artifact', await putManifest(await put('application/json', {})), Code.InvalidArgument],
        ['few-layers', await putManifest(good, []), Code.InvalidArgument],
        ['other-layer', await putManifest(good, [await put(LAYER, other)]), Code.FailedPrecondition],
        ['no-layer', await putManifest(await putConfig({}, [missing.digest]), [missing]), Code.NotFound],
        ['no-user', await putManifest(await putConfig({ Cmd: ['true'], User: 'nemo' })), Code.NotFound],
        ['empty', await put(INDEX, { manifests: [] }), Code.NotFound],
      ];
      await assert.rejects(client.containers.createFromImage('bad', 'none'), (error) =>
        isCode(error, Code.NotFound),
      );
      for (const [image, target, code] of images) {
        // The layer of the first test is unpacked; what another layer is is found out only where it is unpacked.
        if (image === 'other-layer') await collect();
        await named(image, target);
        await assert.rejects(client.containers.createFromImage('bad', image), (error) => {
          assert.ok(isCode(error, code), `${image}: ${String(error)}`);
          return true;
        });
      }
      assert.deepEqual(await client.containers.list(), []);
      assert.deepEqual(await client.snapshots().list(['kind==active']), []);
      assert.equal((await client.leases.list()).length, 1);
      assert.ok(!existsSync(peer.fifoDirectory) || peer.fifoDirectories().length === 0);
    });

    /** Without the image, its snapshot is garbage. */
    async function collect(): Promise<void> {
      for (const { name: image } of await client.images.list()) await client.images.delete(image);
      await client.leases.create({ id: 'sweep' });
      await client.leases.delete('sweep', { sync: true });
      for (const { name: snapshot } of await client.snapshots().list())
        await client.snapshots().remove(snapshot);
    }
  });
}
