/** Events on their way: what makes one valid, and how filters see it. */
import * as containers from '../../proto/gen/containerd/events/container.ts';
import * as namespaces from '../../proto/gen/containerd/events/namespace.ts';
import * as snapshots from '../../proto/gen/containerd/events/snapshot.ts';
import * as tasks from '../../proto/gen/containerd/events/task.ts';
import * as networks from '../../proto/gen/moor/events/network.ts';
import { Envelope } from '../../proto/gen/containerd/types/event.ts';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import { type Fields, present } from '../filters/filter.ts';
import { checkIdentifier } from '../identifiers.ts';

export type { Envelope } from '../../proto/gen/containerd/types/event.ts';

interface EventType {
  decode(bytes: Uint8Array): object;
}

/** Every event this daemon knows, by its message's full name. */
const types = new Map<string, EventType>();
for (const module of [containers, namespaces, networks, snapshots, tasks]) {
  for (const [name, member] of Object.entries(module)) {
    if (typeof member === 'object' && 'decode' in member)
      types.set(`${module.protobufPackage}.${name}`, member);
  }
}

/**
 * Checks a topic: `/` and identifiers joined by `/`.
 *
 * @throws RpcError InvalidArgument
 */
export function checkTopic(topic: string): void {
  const refuse = (why: string): never => {
    throw invalidArgument(`envelope topic ${JSON.stringify(topic.slice(0, 96))}: ${why}`);
  };
  if (topic === '') refuse('must not be empty: invalid argument');
  if (!topic.startsWith('/')) refuse("must start with '/': invalid argument");
  if (topic === '/') refuse('must have at least one component: invalid argument');
  for (const component of topic.slice(1).split('/')) {
    try {
      checkIdentifier(component);
    } catch (error) {
      refuse(`failed validation on component ${JSON.stringify(component.slice(0, 96))}: ${messageOf(error)}`);
    }
  }
}

/** @throws RpcError InvalidArgument for an envelope that no publisher may send on */
export function checkEnvelope(envelope: Envelope): void {
  try {
    checkIdentifier(envelope.namespace);
  } catch (error) {
    throw invalidArgument(`event envelope has invalid namespace: ${messageOf(error)}`, error);
  }
  checkTopic(envelope.topic);
  if (envelope.timestamp === undefined) {
    throw invalidArgument('timestamp must be set on forwarded event: invalid argument');
  }
}

/** Topics of what happens to a process once, and tells its pid and the time of its end. */
const FINAL_TOPICS: ReadonlySet<string> = new Set(['/tasks/exit', '/tasks/delete']);

/**
 * What makes two envelopes one event. A shim that got no answer sends the same envelope once more, and no publisher gives two of its
 * events the same time. The end of a process may be told by its shim or by the daemon in its place, at different times: it is
 * known by what it says.
 */
export function identityOf(envelope: Envelope): string {
  const { namespace, topic, event } = envelope;
  if (event !== undefined && FINAL_TOPICS.has(topic)) {
    const { exitedAt } = decoded(event) as { exitedAt?: object };
    if (exitedAt !== undefined) return `${namespace} ${topic} ${Buffer.from(event.value).toString('latin1')}`;
  }
  return Buffer.from(Envelope.encode(envelope).finish()).toString('latin1');
}

/** Fields of an envelope: `topic`, `namespace` and `event.<field>` with the field's name as in the event's contract. */
export function envelopeFields(envelope: Envelope): Fields {
  let event: object | undefined;
  return ([first = '', ...rest]) => {
    switch (first) {
      case 'topic':
        return present(envelope.topic);
      case 'namespace':
        return present(envelope.namespace);
      case 'event':
        event ??= decoded(envelope.event);
        return fieldOf(event, rest);
      default:
        return undefined;
    }
  };
}

/** The event itself; empty when it is of an unknown type or not what its type says. */
function decoded(event: Any | undefined): object {
  if (event === undefined) return {};
  const type = types.get(event.typeUrl.slice(event.typeUrl.lastIndexOf('/') + 1));
  try {
    return type?.decode(event.value) ?? {};
  } catch {
    return {};
  }
}

function fieldOf(value: unknown, path: readonly string[]): string | undefined {
  if (path.length === 0) {
    if (typeof value === 'string') return present(value);
    return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = value as { readonly [key: string]: unknown };
  // In a map of strings, such as labels, the rest of the path is one key.
  const key = path.join('.');
  if (Object.hasOwn(fields, key)) return fieldOf(fields[key], []);
  const name = path[0]!.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  return Object.hasOwn(fields, name) ? fieldOf(fields[name], path.slice(1)) : undefined;
}
