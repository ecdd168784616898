import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckpointOptions, Options } from '../../proto/gen/containerd/runtime/runc.ts';
import { CreateOptions, RuncOptions } from '../../proto/gen/containerd/runtime/runc_v1.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { checkpointPath, foreignOptions, ownOptions, restorePath } from './options.ts';

const any = (typeUrl: string, value: Uint8Array): Any => ({ typeUrl, value: Buffer.from(value) });
const options = (message: Partial<Options>, host = '') =>
  any(`${host}containerd.runc.v1.Options`, Options.encode(Options.fromPartial(message)).finish());
const runc = (message: Partial<RuncOptions>) =>
  any('containerd.linux.runc.RuncOptions', RuncOptions.encode(RuncOptions.fromPartial(message)).finish());
const create = (message: Partial<CreateOptions>) =>
  any(
    'containerd.linux.runc.CreateOptions',
    CreateOptions.encode(CreateOptions.fromPartial(message)).finish(),
  );

test("the request's options go before the container's", () => {
  const chosen = ownOptions(
    options({ root: '/r' }, 'type.googleapis.com/'),
    options({ root: '/c', ioUid: 1 }),
  );
  assert.equal(chosen?.typeUrl, 'containerd.runc.v1.Options');
  assert.deepEqual(Options.decode(chosen.value), Options.fromPartial({ root: '/r' }));
  assert.equal(Options.decode(ownOptions(undefined, options({ root: '/c' }))!.value).root, '/c');
  assert.equal(ownOptions(undefined, undefined), undefined);
  assert.equal(ownOptions(any('', Buffer.alloc(0)), undefined), undefined);
});

test('what clients of the first generation say with container and request is put together', () => {
  const chosen = ownOptions(
    create({ noPivotRoot: true, ioUid: 7 }),
    runc({ runtime: 'crun', runtimeRoot: '/r', systemdCgroup: true }),
  );
  assert.deepEqual(
    Options.decode(chosen!.value),
    Options.fromPartial({ noPivotRoot: true, ioUid: 7, binaryName: 'crun', root: '/r', systemdCgroup: true }),
  );
  assert.equal(Options.decode(ownOptions(undefined, runc({ runtime: 'crun' }))!.value).binaryName, 'crun');
});

test('options that the shim would not understand are refused by name', () => {
  const refused = (given: Any, text: RegExp) =>
    assert.throws(
      () => ownOptions(given, undefined),
      (error: Error) => isCode(error, Code.InvalidArgument) && text.test(error.message),
    );
  refused(any('kata.Options', Buffer.alloc(0)), /kata\.Options are not known/);
  refused(any('containerd.runc.v1.Options', Buffer.from([0xff])), /not a containerd\.runc\.v1\.Options/);
  const foreign = any('kata.Options', Buffer.alloc(0));
  assert.equal(foreignOptions(foreign, undefined), foreign);
});

test('directories of checkpoints are found in the options', () => {
  assert.equal(restorePath(options({ criuImagePath: '/image' })), '/image');
  assert.equal(restorePath(undefined), '');
  const checkpoint = CheckpointOptions.encode(CheckpointOptions.fromPartial({ imagePath: '/to' })).finish();
  assert.equal(checkpointPath(any('containerd.runc.v1.CheckpointOptions', checkpoint)), '/to');
  assert.equal(checkpointPath(undefined), '');
});
