/** What subscribers are told of sandboxes. */
import { SandboxCreate, SandboxExit, SandboxStart } from '../../proto/gen/containerd/events/sandbox.ts';
import type { Exit } from '../runtime/exit.ts';
import type { Exchange } from './exchange.ts';
import { pack } from './pack.ts';

type Publisher = Pick<Exchange, 'publish'>;

export interface SandboxName {
  readonly namespace: string;
  readonly id: string;
}

export function announceSandbox(events: Publisher, { namespace, id: sandboxId }: SandboxName): void {
  events.publish(namespace, '/sandboxes/create', pack('SandboxCreate', SandboxCreate, { sandboxId }));
}

export function announceSandboxStart(events: Publisher, { namespace, id: sandboxId }: SandboxName): void {
  events.publish(namespace, '/sandboxes/start', pack('SandboxStart', SandboxStart, { sandboxId }));
}

export function announceSandboxExit(
  events: Publisher,
  { namespace, id: sandboxId }: SandboxName,
  { status: exitStatus, exitedAt }: Pick<Exit, 'status' | 'exitedAt'>,
): void {
  const event = pack('SandboxExit', SandboxExit, { sandboxId, exitStatus, exitedAt });
  events.publish(namespace, '/sandboxes/exit', event);
}
