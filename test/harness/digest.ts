/** Digests of streams too large to keep. */
import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';

export interface Digest {
  readonly bytes: number;
  readonly sha256: string;
}

/** Reads a stream to its end. */
export async function digestOf(stream: AsyncIterable<Uint8Array> | null): Promise<Digest> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of stream ?? []) {
    hash.update(chunk);
    bytes += chunk.byteLength;
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** What a block repeated a number of times digests to. */
export async function digestOfRepeated(block: Uint8Array, times: number): Promise<Digest> {
  const hash = createHash('sha256');
  for (let round = 0; round < times; round += 1) {
    hash.update(block);
    if (round % 16 === 0) await turn(); // let the streams under test flow
  }
  return { bytes: block.byteLength * times, sha256: hash.digest('hex') };
}
