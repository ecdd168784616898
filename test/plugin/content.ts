/** A content store in a process of its own: `content.ts SOCKET FOLDER`. Each blob is a file named by its digest. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ContentDefinition, WriteAction } from '../../proto/gen/containerd/services/content.ts';
import { alreadyExists, failedPrecondition, notFound, outOfRange } from '../../ttrpc/errors.ts';
import { serve } from './server.ts';

const [, , socket = '', folder = ''] = process.argv;
const PIECE = 1 << 20;

mkdirSync(folder, { recursive: true });

const pathOf = (digest: string): string => join(folder, digest);
const writing = new Map<string, Buffer>();

function blob(digest: string): Buffer {
  if (!existsSync(pathOf(digest))) throw notFound(`plugin: content ${digest} is not there`);
  return readFileSync(pathOf(digest));
}

serve(socket, ContentDefinition, {
  info: async ({ digest }) => ({ info: { digest, size: BigInt(blob(digest).length) } }),
  async delete({ digest }) {
    blob(digest);
    rmSync(pathOf(digest));
    return {};
  },
  async *list() {
    yield {
      info: readdirSync(folder).map((digest) => ({ digest, size: BigInt(statSync(pathOf(digest)).size) })),
    };
  },
  async *read({ digest }) {
    const bytes = blob(digest);
    for (let offset = 0; offset < bytes.length; offset += PIECE)
      yield { offset: BigInt(offset), data: bytes.subarray(offset, offset + PIECE) };
  },
  async status({ ref }) {
    const bytes = writing.get(ref);
    if (bytes === undefined) throw notFound(`plugin: ${ref} is not being written`);
    return { status: { ref, offset: BigInt(bytes.length) } };
  },
  async *write(requests) {
    for await (const { ref, offset, data, action, expected } of requests) {
      if (expected !== '' && existsSync(pathOf(expected)))
        throw alreadyExists(`plugin: ${expected} is there`);
      const before = writing.get(ref) ?? Buffer.alloc(0);
      if (Number(offset) !== before.length) throw outOfRange(`plugin: ${offset} is not ${before.length}`);
      const bytes = Buffer.concat([before, data]);
      writing.set(ref, bytes);
      const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
      if (action === WriteAction.COMMIT) {
        writing.delete(ref);
        if (digest !== expected) throw failedPrecondition(`plugin: ${digest} is not ${expected}`);
        writeFileSync(pathOf(digest), bytes);
      }
      yield { action, offset: BigInt(bytes.length), digest };
    }
  },
});
