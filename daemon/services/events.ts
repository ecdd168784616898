import { EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { Exchange } from '../events/exchange.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';
import { isOlder } from '../process-age.ts';

export function eventsService(exchange: Exchange): Service {
  return service(EventsDefinition, {
    async publish({ topic, event }, context) {
      if (event === undefined) throw invalidArgument('event must be set: invalid argument');
      exchange.publish(namespaceOf(context), topic, event);
      return {};
    },

    async forward({ envelope }) {
      if (envelope === undefined) throw invalidArgument('envelope must be set: invalid argument');
      exchange.forward(envelope);
      return {};
    },

    // Every namespace's: clients narrow it down by filters, as `ctr events` does not.
    subscribe: ({ filters }, { signal, peerPid }) => exchange.subscribe(filters, signal, returning(peerPid)),
  });
}

/** A client whose age cannot be known is taken for one that is back: being told of an end twice is better than never. */
function returning(pid = 0): number | undefined {
  return pid === 0 || isOlder(pid) ? pid : undefined;
}
