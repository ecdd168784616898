/** Containers of pods: made, started, stopped, removed, listed, updated, and programs run in them to their end. */
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Calls, Cri } from './cri.ts';

export function containerCalls(
  _cri: Cri,
): Calls<
  | 'createContainer'
  | 'startContainer'
  | 'stopContainer'
  | 'removeContainer'
  | 'listContainers'
  | 'streamContainers'
  | 'containerStatus'
  | 'updateContainerResources'
  | 'reopenContainerLog'
  | 'execSync'
  | 'checkpointContainer'
> {
  return {
    async createContainer() {
      throw unimplemented('createContainer is not served yet');
    },
    async startContainer() {
      throw unimplemented('startContainer is not served yet');
    },
    async stopContainer() {
      throw unimplemented('stopContainer is not served yet');
    },
    async removeContainer() {
      throw unimplemented('removeContainer is not served yet');
    },
    async listContainers() {
      throw unimplemented('listContainers is not served yet');
    },
    streamContainers() {
      throw unimplemented('streamContainers is not served yet');
    },
    async containerStatus() {
      throw unimplemented('containerStatus is not served yet');
    },
    async updateContainerResources() {
      throw unimplemented('updateContainerResources is not served yet');
    },
    async reopenContainerLog() {
      throw unimplemented('reopenContainerLog is not served yet');
    },
    async execSync() {
      throw unimplemented('execSync is not served yet');
    },
    async checkpointContainer() {
      throw unimplemented('checkpointContainer is not served yet');
    },
  };
}
