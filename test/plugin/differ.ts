/**
 * A differ in a process of its own, for layers of one odd type: `differ.ts SOCKET FOLDER DAEMON`. It reads them from the daemon's
 * content, as plugins do.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { ContentDefinition } from '../../proto/gen/containerd/services/content.ts';
import { DiffDefinition } from '../../proto/gen/containerd/services/diff.ts';
import { unimplemented } from '../../ttrpc/errors.ts';
import { Connection } from '../harness/rpc.ts';
import { serve } from './server.ts';

const [, , socket = '', folder = '', daemon = ''] = process.argv;
const ODD = 'application/vnd.moor.test.layer';

mkdirSync(folder, { recursive: true });

async function read(namespace: string, digest: string): Promise<Buffer> {
  using connection = new Connection(daemon);
  const pieces: Buffer[] = [];
  const content = connection.service(ContentDefinition, namespace);
  for await (const { data } of content.read({ digest })) pieces.push(data);
  return Buffer.concat(pieces);
}

serve(socket, DiffDefinition, {
  async apply({ diff, mounts }, { namespace }) {
    if (diff!.mediaType !== ODD) throw unimplemented(`plugin: layers of the type ${diff!.mediaType}`);
    const archive = (await read(namespace, diff!.digest)).reverse();
    const target = mkdtempSync(join(folder, 'mount-'));
    const [{ type, source, options }] = mounts as [(typeof mounts)[number]];
    const flags = type === 'bind' ? [] : ['-t', type];
    execFileSync('mount', [...flags, '-o', options.join(), source, target]);
    try {
      execFileSync('tar', ['-x', '-C', target], { input: archive });
    } finally {
      execFileSync('umount', [target]);
      rmdirSync(target);
    }
    const digest = `sha256:${createHash('sha256').update(archive).digest('hex')}`;
    return {
      applied: { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: BigInt(archive.length) },
    };
  },
});
