import { EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { AFTER, isFingerprint } from '../../grpc/resume.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import type { Exchange } from '../events/exchange.ts';
import { peerOf } from '../events/followers.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';

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
    subscribe({ filters }, context) {
      const after = context.metadata.get(AFTER)?.[0];
      if (after !== undefined && !isFingerprint(after))
        throw invalidArgument(`${AFTER} must be 64 hex digits, not ${JSON.stringify(after.slice(0, 96))}`);
      const subscription = exchange.subscribe(filters, context.signal, peerOf(context.peerPid), after);
      context.onSent?.(() => subscription.passedOn());
      return subscription;
    },
  });
}
