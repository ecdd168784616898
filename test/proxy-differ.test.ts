/** A differ in another process, asked before the daemon's own. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ContentDefinition, WriteAction } from '../proto/gen/containerd/services/content.ts';
import { DiffDefinition } from '../proto/gen/containerd/services/diff.ts';
import { SnapshotsDefinition } from '../proto/gen/containerd/services/snapshots.ts';
import { archive } from '../daemon/distribution/testing/image.ts';
import { Connection } from '../client/connection.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import { Daemon } from './harness/daemon.ts';
import { Plugin } from './harness/plugin.ts';
import { soon } from './harness/wait.ts';

const ODD = 'application/vnd.moor.test.layer';
const TAR = 'application/vnd.oci.image.layer.v1.tar';
const namespace = 'differ';
const kept = { 'containerd.io/gc.root': 'test' };

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

describe('a differ that another process serves', { timeout: 120_000 }, () => {
  let plugin: Plugin;
  let daemon: Daemon;
  before(async () => {
    plugin = new Plugin('differ.ts');
    const config = `[proxy_plugins.odd]
type = "diff"
address = "${plugin.address}"
timeout = "4s"
[plugins."io.containerd.service.v1.diff-service"]
default = ["odd", "walking"]
`;
    daemon = await Daemon.start('moord', { config });
    await plugin.start(daemon.address);
  });
  after(async () => {
    await daemon.stop();
    await plugin[Symbol.asyncDispose]();
  });

  /** Unpacks bytes as a layer of that type into a new snapshot. */
  async function apply(bytes: Buffer, mediaType: string, key: string) {
    using connection = new Connection(daemon.address);
    const headers = [['containerd-namespace', namespace]] as const;
    const content = connection.service(ContentDefinition, headers);
    const [digest, total] = [digestOf(bytes), BigInt(bytes.length)];
    async function* requests() {
      yield { action: WriteAction.COMMIT, ref: key, total, expected: digest, data: bytes, labels: kept };
    }
    for await (const answer of content.write(requests())) assert.equal(answer.digest, digest);
    const snapshots = connection.service(SnapshotsDefinition, headers);
    const { mounts } = await snapshots.prepare({ snapshotter: 'native', key, labels: kept });
    const diff = { mediaType, digest, size: total, annotations: {} };
    const { applied } = await connection.service(DiffDefinition, headers).apply({ diff, mounts });
    return { applied: applied!, file: readFileSync(join(mounts[0]!.source, 'file'), 'utf8') };
  }

  it('unpacks what is its own, and leaves the rest to the daemon', async () => {
    const bytes = await archive({ file: 'odd' });
    const odd = await apply(Buffer.from(bytes).reverse(), ODD, 'odd');
    assert.equal(odd.file, 'odd');
    assert.equal(odd.applied.digest, digestOf(bytes));
    const plain = await apply(await archive({ file: 'plain' }), TAR, 'plain');
    assert.equal(plain.file, 'plain');
  });

  it('killed, it gives errors at once; started again, it goes on', async () => {
    await plugin.kill9();
    const bytes = Buffer.from(await archive({ file: 'late' })).reverse();
    await assert.rejects(soon('an error', apply(bytes, ODD, 'late'), { within: 15_000 }), (error) => {
      assert.ok(isCode(error, Code.Unavailable), String(error));
      assert.match(error.message, /^plugin odd: /);
      return true;
    });
    await plugin.start(daemon.address);
    const again = Buffer.from(await archive({ file: 'again' })).reverse();
    assert.equal((await apply(again, ODD, 'again')).file, 'again');
  });
});
