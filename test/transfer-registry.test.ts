/** The daemon itself between its store and Debian's registry, asked by the SDK: plain, with TLS, with a password, and with both. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { type Client, Code, type CredentialProvider, connect, isCode } from '../client/client.ts';
import { busyboxImage, multiPlatform, ociArchive } from './harness/image.ts';
import { suite } from './harness/peers.ts';
import { LocalRegistry } from './harness/registry.ts';

suite('the daemon and a registry', { peers: ['moord'] }, (rig) => {
  const open = (): Promise<Client> => connect({ address: rig.daemon.address, namespace: rig.ctr.namespace });

  for (const tls of [false, true])
    for (const password of [false, true])
      it(`push and pull ${tls ? 'over TLS' : 'over plain HTTP'}${password ? ' with a password' : ''}`, async () => {
        await using registry = await LocalRegistry.start({ tls, password });
        using client = await open();
        const [here, arm] = await Promise.all([
          busyboxImage({ above: [{ 'etc/motd': 'here' }] }),
          busyboxImage({ architecture: 'arm64' }),
        ]);
        const both = multiPlatform({ amd64: here, arm64: arm });
        const name = registry.image('fleet/both', '1');
        const file = ociArchive(join(rig.daemon.directory, 'both.tar'), [[name], both]);
        await rig.ctr.ok('images', 'import', '--all-platforms', file);

        const [username = '', ...rest] = registry.user?.split(':') ?? [];
        const answering =
          (secret: string): CredentialProvider =>
          () =>
            Promise.resolve({ kind: 'password', username, secret });
        const credentials = answering(rest.join(':'));
        const access = {
          ...(registry.ca !== undefined && { tls: { ca: readFileSync(registry.ca) } }),
          ...(password && { credentials }),
        };
        const byHosts = { hostsDirectory: registry.hostsDir, ...(password && { credentials }) };
        await client.transfers.push(name, access);
        await client.transfers.push(registry.image('fleet/copy', '1'), { ...byHosts, source: name });
        await rig.ctr.removeImages();
        assert.deepEqual(await rig.ctr.digests(), []);

        const image = await client.transfers.pull(name, access);
        assert.equal(image.target.digest, both.index.digest);
        assert.equal((await rig.ctr.runImage(name, 'pulled', ['cat', '/etc/motd'])).stdout, 'here');
        const copy = `${registry.host}/fleet/copy@${arm.manifest.digest}`;
        await client.transfers.pull(copy, { ...byHosts, unpack: false, platforms: 'all' });
        assert.match(await rig.ctr.ok('images', 'ls', `name==${copy}`), /linux\/arm64/);

        const refused = (options: object, code: Code) =>
          assert.rejects(client.transfers.pull(name, options), (error) => isCode(error, code));
        if (password) {
          await refused({ ...access, credentials: answering('wrong') }, Code.Unauthenticated);
          await refused({ ...access, credentials: undefined }, Code.Unauthenticated);
        }
        if (tls) await refused({ ...access, tls: {} }, Code.Unavailable);
        await assert.rejects(client.transfers.pull(registry.image('none'), access), (error) =>
          isCode(error, Code.NotFound),
        );
        await rig.ctr.removeImages();
        assert.deepEqual(await rig.ctr.digests(), []);
      });
});
