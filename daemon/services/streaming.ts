import { StreamInit, StreamingDefinition } from '../../proto/gen/containerd/services/streaming.ts';
import { invalidArgument } from '../../ttrpc/errors.ts';
import { typeNameOf } from '../distribution/any.ts';
import { Channel, type Streams } from '../distribution/streams.ts';
import { namespaceOf } from '../grpc/context.ts';
import { type Service, service } from '../grpc/server.ts';

const EMPTY = { typeUrl: 'google.protobuf.Empty', value: Buffer.alloc(0) };

export function streamingService(streams: Streams): Service {
  return service(StreamingDefinition, {
    async *stream(requests, context) {
      const namespace = namespaceOf(context);
      const incoming = requests[Symbol.asyncIterator]();
      const first = await incoming.next();
      if (first.done === true || typeNameOf(first.value) !== 'containerd.services.streaming.v1.StreamInit')
        throw invalidArgument('the first message of a stream must name it: invalid argument');
      const { id } = StreamInit.decode(first.value.value);
      if (id === '') throw invalidArgument('a stream needs an id: invalid argument');
      const channel = new Channel(incoming, context.signal);
      using held = new DisposableStack();
      held.use(streams.add(namespace, id, channel));
      // By this the client knows that the stream can be named in a call.
      yield EMPTY;
      yield* channel.outgoing();
    },
  });
}
