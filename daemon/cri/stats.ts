/** What pods and their containers use. */
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';

export function statsCalls(
  _cri: Cri,
): Calls<
  | 'containerStats'
  | 'listContainerStats'
  | 'streamContainerStats'
  | 'podSandboxStats'
  | 'listPodSandboxStats'
  | 'streamPodSandboxStats'
  | 'listMetricDescriptors'
  | 'listPodSandboxMetrics'
  | 'streamPodSandboxMetrics'
> {
  return {
    async containerStats() {
      throw unimplemented('containerStats is not served yet');
    },
    async listContainerStats() {
      throw unimplemented('listContainerStats is not served yet');
    },
    streamContainerStats() {
      throw unimplemented('streamContainerStats is not served yet');
    },
    async podSandboxStats() {
      throw unimplemented('podSandboxStats is not served yet');
    },
    async listPodSandboxStats() {
      throw unimplemented('listPodSandboxStats is not served yet');
    },
    streamPodSandboxStats() {
      throw unimplemented('streamPodSandboxStats is not served yet');
    },
    async listMetricDescriptors() {
      throw unimplemented('listMetricDescriptors is not served yet');
    },
    async listPodSandboxMetrics() {
      throw unimplemented('listPodSandboxMetrics is not served yet');
    },
    streamPodSandboxMetrics() {
      throw unimplemented('streamPodSandboxMetrics is not served yet');
    },
  };
}
