/** What the daemon can do with a kind of shim before it can talk to it, and after it no longer can. */
import type { Logger } from 'pino';
import type { DeleteResponse } from '../../proto/gen/containerd/task/v2.ts';
import type { Bootstrap } from './bootstrap.ts';
import type { Bundle } from './bundle.ts';

/** What every shim is told of its daemon. */
export interface DaemonAddresses {
  /** The gRPC socket. */
  readonly grpc: string;
  /** The ttrpc socket that takes shims' events. */
  readonly ttrpc: string;
}

export interface StartedShim {
  readonly bootstrap: Bootstrap;
  /** The shim's process when it is known. */
  readonly pid: number | undefined;
}

export interface Launcher {
  /** The runtime's name as clients know it. */
  readonly runtime: string;
  /** Moor's own shim keeps its events until they are acknowledged, and writes its own exit record. */
  readonly own: boolean;
  /**
   * Starts a shim for a bundle. When it resolves the shim can be connected to, and the bundle's bootstrap record says where.
   * @throws RpcError; nothing runs then
   */
  start(bundle: Bundle): Promise<StartedShim>;
  /**
   * Kills and removes whatever a dead shim has left of its container, by the shim program's `delete` command.
   * @throws RpcError when the program failed
   */
  deleteDead(bundle: Bundle): Promise<DeleteResponse>;
  /**
   * Reads the shim's log where the daemon must, until the returned function is called.
   * @throws the file system's error
   */
  followLog(bundle: Bundle, log: Logger): () => void;
}

/** Milliseconds for a deletion: runc kills, then waits for up to 10 s for the processes to be gone. */
export const DELETE_TIMEOUT_MS = 30_000;
