/** The Container Runtime Interface, by which kubelet drives the daemon: `runtime.v1`, and by its former name for kubelets up to 1.25. */
import { ImageServiceDefinition, RuntimeServiceDefinition } from '../../proto/gen/runtime/v1/api.ts';
import type { ServiceDefinition } from '../../ttrpc/service.ts';
import { containerCalls } from '../cri/container.ts';
import type { Cri } from '../cri/cri.ts';
import { eventCalls } from '../cri/events.ts';
import { imageCalls } from '../cri/image.ts';
import { sandboxCalls } from '../cri/sandbox.ts';
import { statsCalls } from '../cri/stats.ts';
import { ALPHA_API, API, statusCalls } from '../cri/status.ts';
import { streamingCalls } from '../cri/streaming.ts';
import { type Service, service } from '../grpc/server.ts';

/** What kubelet is to find at its socket, under each name that it may know the interface by. */
export function criServices(cri: Cri): Service[] {
  const images = imageCalls(cri);
  const runtime = {
    ...sandboxCalls(cri),
    ...containerCalls(cri),
    ...statsCalls(cri),
    ...streamingCalls(cri),
    ...eventCalls(cri),
  };
  return [API, ALPHA_API].flatMap((api) => [
    service(named(RuntimeServiceDefinition, api), { ...runtime, ...statusCalls(cri, api) }),
    service(named(ImageServiceDefinition, api), images),
  ]);
}

/** Messages of `v1alpha2` are those of `v1` on the wire, field by field. */
function named<S extends ServiceDefinition>(definition: S, api: string): S {
  return { ...definition, fullName: `runtime.${api}.${definition.name}` };
}
