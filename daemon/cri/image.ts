/** `runtime.v1.ImageService`: images as kubelet has them. */
import { unimplemented } from '../../ttrpc/errors.ts';
import type { Cri, ImageCalls } from './cri.ts';

export function imageCalls(_cri: Cri): ImageCalls {
  return {
    async listImages() {
      throw unimplemented('listImages is not served yet');
    },
    streamImages() {
      throw unimplemented('streamImages is not served yet');
    },
    async imageStatus() {
      throw unimplemented('imageStatus is not served yet');
    },
    async pullImage() {
      throw unimplemented('pullImage is not served yet');
    },
    async removeImage() {
      throw unimplemented('removeImage is not served yet');
    },
    async imageFsInfo() {
      throw unimplemented('imageFsInfo is not served yet');
    },
  };
}
