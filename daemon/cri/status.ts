/** What the runtime is and whether it is ready. */
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';

export function statusCalls(
  _cri: Cri,
): Calls<'version' | 'status' | 'runtimeConfig' | 'updateRuntimeConfig'> {
  return {
    async version() {
      throw unimplemented('version is not served yet');
    },
    async status() {
      throw unimplemented('status is not served yet');
    },
    async runtimeConfig() {
      throw unimplemented('runtimeConfig is not served yet');
    },
    async updateRuntimeConfig() {
      throw unimplemented('updateRuntimeConfig is not served yet');
    },
  };
}
