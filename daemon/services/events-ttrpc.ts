/** Takes the events of shims. */
import type { EventsDefinition } from '../../proto/gen/containerd/services/events_ttrpc.ts';
import type { ServiceImplementation } from '../../ttrpc/service.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { Exchange } from '../events/exchange.ts';
import type { TaskManager } from '../runtime/manager.ts';

/**
 * `containerd.services.events.ttrpc.v1.Events`: an answer means that the event has been given to the subscribers, so that the
 * shim may forget it. Of starts, ends and deletions they are told once, by the shim or by the daemon in its place.
 */
export function shimEventsService(
  exchange: Exchange,
  tasks: TaskManager,
): ServiceImplementation<typeof EventsDefinition> {
  return {
    async forward({ envelope }) {
      if (envelope === undefined) throw invalidArgument('the request has no envelope: invalid argument');
      const news = tasks.readNews(envelope);
      if (news?.repeated === true) return {};
      exchange.forward(envelope);
      news?.noted();
      return {};
    },
  };
}
