import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type ContentDefinition,
  WriteAction,
  WriteContentRequest,
  type WriteContentResponse,
} from '../../proto/gen/containerd/services/content.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import type { CallContext, PartialMessage, ServiceImplementation } from '../../ttrpc/service.ts';
import { NamespacedContent } from '../content/namespaced-content.ts';
import { ContentStore } from '../content/store.ts';
import { MetadataStore } from '../metadata/store.ts';
import { contentService } from './content.ts';

type Implementation = ServiceImplementation<typeof ContentDefinition>;
type Request = PartialMessage<WriteContentRequest>;

const contextOf = (namespace: string, lease = ''): CallContext => ({
  signal: new AbortController().signal,
  metadata: new Map([
    ['containerd-namespace', [namespace]],
    ['containerd-lease', [lease]],
  ]),
});
const here = contextOf('here');

class Served {
  readonly topics: string[] = [];
  service!: Implementation;
  metadata!: MetadataStore;

  static async open(t: TestContext): Promise<Served> {
    const served = new Served();
    const directory = mkdtempSync(join(tmpdir(), 'moor-content-service-'));
    served.metadata = await MetadataStore.open(join(directory, 'metadata'));
    const store = await ContentStore.open(join(directory, 'content'));
    const content = new NamespacedContent(served.metadata.database, store);
    t.after(async () => {
      await content.close();
      await served.metadata.close();
      rmSync(directory, { recursive: true });
    });
    const events = { publish: (_: string, topic: string) => void served.topics.push(topic) };
    served.service = contentService(content, events).implementation as unknown as Implementation;
    return served;
  }

  /** Sends each request when the one before has been answered, as clients do. */
  async write(requests: Request[], context = here): Promise<PartialMessage<WriteContentResponse>[]> {
    const answers: PartialMessage<WriteContentResponse>[] = [];
    async function* sent(): AsyncGenerator<WriteContentRequest> {
      for (const request of requests) yield WriteContentRequest.fromPartial(request);
    }
    for await (const answer of this.service.write(sent(), context)) answers.push(answer);
    return answers;
  }

  async read(digest: string, offset: bigint, size: bigint): Promise<{ offsets: bigint[]; bytes: Buffer }> {
    const parts: Buffer[] = [];
    const offsets: bigint[] = [];
    for await (const { offset: at, data } of this.service.read({ digest, offset, size }, here)) {
      offsets.push(at!);
      parts.push(Buffer.from(data!));
    }
    return { offsets, bytes: Buffer.concat(parts) };
  }
}

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const refused = (code: Code, text: RegExp) => (error: unknown) =>
  isCode(error, code) && text.test(error.message);

test('a client writes, asks, commits, and reads parts back', async (t) => {
  const served = await Served.open(t);
  const bytes = randomBytes(2_500_000);
  const half = 1_200_000;
  const answers = await served.write([
    { action: WriteAction.STAT, ref: 'r', total: BigInt(bytes.length), expected: digestOf(bytes) },
    { action: WriteAction.WRITE, data: bytes.subarray(0, half) },
    { action: WriteAction.WRITE, offset: BigInt(half), data: bytes.subarray(half) },
    { action: WriteAction.COMMIT, offset: BigInt(bytes.length), labels: { a: 'b' } },
  ]);
  assert.deepEqual(
    answers.map(({ offset }) => offset),
    [0n, BigInt(half), BigInt(bytes.length), BigInt(bytes.length)],
  );
  assert.equal(answers[0]!.total, BigInt(bytes.length));
  assert.equal(answers[1]!.digest, digestOf(bytes.subarray(0, half)));
  assert.equal(answers[3]!.digest, digestOf(bytes));

  const whole = await served.read(digestOf(bytes), 0n, 0n);
  assert.deepEqual(whole.bytes, bytes);
  assert.deepEqual(whole.offsets, [0n, 1048576n, 2097152n]);
  const part = await served.read(digestOf(bytes), 100n, 50n);
  assert.deepEqual(part.bytes, bytes.subarray(100, 150));
  assert.equal((await served.read(digestOf(bytes), BigInt(bytes.length), 10n)).bytes.length, 0);
  assert.equal((await served.read(digestOf(bytes), 2_499_990n, 1000n)).bytes.length, 10);
  await assert.rejects(served.read(digestOf(bytes), 2_500_001n, 1n), refused(Code.OutOfRange, /2500000/));
});

test('a write goes to the end, or begins anew at 0', async (t) => {
  const served = await Served.open(t);
  await assert.rejects(
    served.write([
      { action: WriteAction.WRITE, ref: 'r', data: Buffer.from('abc') },
      { action: WriteAction.WRITE, offset: 2n, data: Buffer.from('d') },
    ]),
    refused(Code.OutOfRange, /write @2 must occur at current offset 3/),
  );
  const answers = await served.write([
    { action: WriteAction.STAT, ref: 'r' },
    { action: WriteAction.WRITE, offset: 0n, data: Buffer.from('xy') },
    { action: WriteAction.COMMIT, offset: 2n },
  ]);
  assert.deepEqual(
    answers.map(({ offset }) => offset),
    [3n, 2n, 2n],
  );
  assert.equal(answers[2]!.digest, digestOf(Buffer.from('xy')));
});

test('what is wrong with a write is said with its code', async (t) => {
  const served = await Served.open(t);
  const data = Buffer.from('abc');
  const expected = digestOf(data);
  await assert.rejects(
    served.write([{ action: WriteAction.STAT }]),
    refused(Code.InvalidArgument, /reference/),
  );
  await assert.rejects(
    served.write([{ action: WriteAction.STAT, ref: 'r', expected: 'sha256:0' }]),
    refused(Code.InvalidArgument, /digest/),
  );
  await assert.rejects(
    served.write([{ action: WriteAction.COMMIT, ref: 'r', data, total: 9n }]),
    refused(Code.FailedPrecondition, /failed size validation: 3 != 9/),
  );
  await served.write([{ action: WriteAction.COMMIT, ref: 'r', data }]);
  await assert.rejects(
    served.write([{ action: WriteAction.STAT, ref: 'r', expected }]),
    refused(Code.AlreadyExists, /already exists/),
  );
  // The digest may be told only later.
  await assert.rejects(
    served.write([
      { action: WriteAction.STAT, ref: 'late' },
      { action: WriteAction.COMMIT, data, expected },
    ]),
    refused(Code.AlreadyExists, /expected digest .* exists/),
  );
  await assert.rejects(
    served.service.status({ ref: 'late' }, here),
    refused(Code.NotFound, /could not get status/),
  );
  await assert.rejects(served.service.info({ digest: 'x' }, here), refused(Code.InvalidArgument, /digest/));
  await assert.rejects(served.service.abort({ ref: 'none' }, here), refused(Code.NotFound, /reference none/));
});

test('a write that stops is seen in the statuses, goes on later, and can be aborted', async (t) => {
  const served = await Served.open(t);
  await served.write([{ action: WriteAction.WRITE, ref: 'layer', total: 10n, data: Buffer.from('abc') }]);
  const { statuses = [] } = await served.service.listStatuses({ filters: ['ref~=^lay'] }, here);
  assert.deepEqual(
    statuses.map(({ ref, offset, total }) => ({ ref, offset, total })),
    [{ ref: 'layer', offset: 3n, total: 10n }],
  );
  const [stat] = await served.write([{ action: WriteAction.STAT, ref: 'layer' }]);
  assert.equal(stat!.offset, 3n);
  assert.equal(stat!.digest, digestOf(Buffer.from('abc')));
  await served.service.abort({ ref: 'layer' }, here);
  assert.deepEqual((await served.service.listStatuses({ filters: [] }, here)).statuses, []);
});

test('content shared by another namespace needs no bytes; a list comes in blocks; a deletion is an event', async (t) => {
  const served = await Served.open(t);
  const data = Buffer.from('abc');
  await served.write([{ action: WriteAction.COMMIT, ref: 'r', data }]);
  const there = contextOf('there');
  const [stat, commit] = await served.write(
    [
      { action: WriteAction.STAT, ref: 'r', expected: digestOf(data), total: 3n },
      { action: WriteAction.COMMIT, offset: 3n, expected: digestOf(data), total: 3n },
    ],
    there,
  );
  assert.equal(stat!.offset, 3n);
  assert.equal(commit!.digest, digestOf(data));
  let count = 0;
  for await (const { info = [] } of served.service.list({ filters: [] }, there)) count += info.length;
  assert.equal(count, 1);
  await served.service.delete({ digest: digestOf(data) }, there);
  assert.deepEqual(served.topics, ['/content/delete']);
  await assert.rejects(
    served.service.delete({ digest: digestOf(data) }, there),
    refused(Code.NotFound, /not found/),
  );
  assert.ok((await served.service.info({ digest: digestOf(data) }, here)).info);
});
