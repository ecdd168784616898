/** Streams of exec, attach and port-forward, which kubelet fetches from an address of their own. */
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';

export function streamingCalls(_cri: Cri): Calls<'exec' | 'attach' | 'portForward'> {
  return {
    async exec() {
      throw unimplemented('exec is not served yet');
    },
    async attach() {
      throw unimplemented('attach is not served yet');
    },
    async portForward() {
      throw unimplemented('portForward is not served yet');
    },
  };
}
