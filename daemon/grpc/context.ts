/** What a call says beside its request. */
import type { CallContext } from '../../ttrpc/service.ts';
import { failedPrecondition } from '../../ttrpc/errors.ts';
import { type Namespace, parseNamespace } from '../identifiers.ts';

/**
 * The namespace the caller works in.
 *
 * @throws RpcError FailedPrecondition when the header is missing, InvalidArgument when it is no identifier
 */
export function namespaceOf(context: CallContext): Namespace {
  const value = context.metadata.get('containerd-namespace')?.[0];
  if (value === undefined || value === '') {
    throw failedPrecondition('namespace is required: failed precondition');
  }
  return parseNamespace(value);
}

/** The lease that holds what the call creates; undefined when the caller named none. */
export function leaseOf(context: CallContext): string | undefined {
  const value = context.metadata.get('containerd-lease')?.[0];
  return value === '' ? undefined : value;
}
