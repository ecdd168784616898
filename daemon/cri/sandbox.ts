/** Pods: run, stopped, removed, listed. */
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';

export function sandboxCalls(
  _cri: Cri,
): Calls<
  | 'runPodSandbox'
  | 'stopPodSandbox'
  | 'removePodSandbox'
  | 'podSandboxStatus'
  | 'listPodSandbox'
  | 'streamPodSandboxes'
  | 'updatePodSandboxResources'
> {
  return {
    async runPodSandbox() {
      throw unimplemented('runPodSandbox is not served yet');
    },
    async stopPodSandbox() {
      throw unimplemented('stopPodSandbox is not served yet');
    },
    async removePodSandbox() {
      throw unimplemented('removePodSandbox is not served yet');
    },
    async podSandboxStatus() {
      throw unimplemented('podSandboxStatus is not served yet');
    },
    async listPodSandbox() {
      throw unimplemented('listPodSandbox is not served yet');
    },
    streamPodSandboxes() {
      throw unimplemented('streamPodSandboxes is not served yet');
    },
    async updatePodSandboxResources() {
      throw unimplemented('updatePodSandboxResources is not served yet');
    },
  };
}
