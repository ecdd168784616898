import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  closeLocal,
  closeRemote,
  isReceivable,
  isSendable,
  type Finished,
  type LocalClosed,
  type RemoteClosed,
} from './stream.ts';

test('a stream is finished when both sides have closed it, in either order', () => {
  const local: LocalClosed = closeLocal('open');
  const remote: RemoteClosed = closeRemote('open');
  const finished: Finished[] = [closeRemote(local), closeLocal(remote)];
  assert.deepEqual([local, remote, ...finished], ['local-closed', 'remote-closed', 'finished', 'finished']);
});

test('each side may send until it has closed', () => {
  assert.deepEqual((['open', 'local-closed', 'remote-closed', 'finished'] as const).map(isSendable), [
    true,
    false,
    true,
    false,
  ]);
  assert.deepEqual((['open', 'local-closed', 'remote-closed', 'finished'] as const).map(isReceivable), [
    true,
    true,
    false,
    false,
  ]);
});

test('wrong transitions do not compile', () => {
  // The compiler is the test: an unused expectation of an error is an error.
  const wrong = () => [
    // @ts-expect-error this side has closed already
    closeLocal('local-closed'),
    // @ts-expect-error the peer has closed already
    closeRemote('remote-closed'),
    // @ts-expect-error nothing happens any more
    closeLocal('finished'),
    // @ts-expect-error nothing happens any more
    closeRemote('finished'),
    // @ts-expect-error the peer has not closed yet
    closeLocal('open') satisfies Finished,
  ];
  assert.equal(typeof wrong, 'function');
});
