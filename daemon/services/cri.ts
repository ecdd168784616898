/** `runtime.v1`: the Container Runtime Interface, by which kubelet drives the daemon. */
import { ImageServiceDefinition, RuntimeServiceDefinition } from '../../proto/gen/runtime/v1/api.ts';
import { containerCalls } from '../cri/container.ts';
import type { Cri } from '../cri/cri.ts';
import { eventCalls } from '../cri/events.ts';
import { imageCalls } from '../cri/image.ts';
import { sandboxCalls } from '../cri/sandbox.ts';
import { statsCalls } from '../cri/stats.ts';
import { statusCalls } from '../cri/status.ts';
import { streamingCalls } from '../cri/streaming.ts';
import { type Service, service } from '../grpc/server.ts';

export function runtimeService(cri: Cri): Service {
  return service(RuntimeServiceDefinition, {
    ...sandboxCalls(cri),
    ...containerCalls(cri),
    ...statsCalls(cri),
    ...streamingCalls(cri),
    ...eventCalls(cri),
    ...statusCalls(cri),
  });
}

export function imageService(cri: Cri): Service {
  return service(ImageServiceDefinition, imageCalls(cri));
}
