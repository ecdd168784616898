/** What runs sandboxes: groups of containers with what they share. Which one a sandbox is run by is in its record, the `sandboxer`. */
import type {
  ControllerCreateRequest,
  ControllerStartResponse,
  ControllerStatusResponse,
  ControllerWaitResponse,
} from '../../proto/gen/containerd/services/sandbox.ts';
import type { Metric } from '../../proto/gen/containerd/types/metrics.ts';
import type { Platform } from '../../proto/gen/containerd/types/platform.ts';
import type { PartialMessage } from '../../ttrpc/service.ts';
import type { Namespace } from '../identifiers.ts';

/** A sandbox's name for its controller. */
export interface SandboxKey {
  readonly namespace: Namespace;
  readonly id: string;
}

/** What a sandbox is made from. */
export type NewSandbox = Pick<
  ControllerCreateRequest,
  'rootfs' | 'options' | 'netnsPath' | 'annotations' | 'sandbox'
>;

/** Every call names a sandbox, and ends with NotFound for one that the controller does not have, unless it says otherwise. */
export interface SandboxController {
  /** @throws RpcError AlreadyExists, InvalidArgument, NotFound for a runtime that is not installed, what the runtime says */
  create(key: SandboxKey, request: NewSandbox, signal: AbortSignal): Promise<void>;
  /** @throws RpcError FailedPrecondition for one that has been started or has ended */
  start(key: SandboxKey, signal: AbortSignal): Promise<PartialMessage<ControllerStartResponse>>;
  /** What containers in it are to be made for. */
  platform(key: SandboxKey, signal: AbortSignal): Promise<Platform | undefined>;
  /** One that is not there has been stopped. @param seconds it has to end by itself; 0 for as long as its runtime gives it */
  stop(key: SandboxKey, seconds: number, signal: AbortSignal): Promise<void>;
  /** Resolves when it has ended. */
  wait(key: SandboxKey, signal: AbortSignal): Promise<PartialMessage<ControllerWaitResponse>>;
  /** One that is not there has no state. */
  status(
    key: SandboxKey,
    verbose: boolean,
    signal: AbortSignal,
  ): Promise<PartialMessage<ControllerStatusResponse>>;
  /** Ends it, and removes all there is of it. */
  shutdown(key: SandboxKey, signal: AbortSignal): Promise<void>;
  /** Undefined for one that is not measured. */
  metrics(key: SandboxKey, signal: AbortSignal): Promise<Metric | undefined>;
  /** Hears of a change of its record. */
  update(key: SandboxKey): Promise<void>;
}

/** States as the CRI names them, and clients of controllers know them. */
export const READY = 'SANDBOX_READY';
export const NOT_READY = 'SANDBOX_NOTREADY';
