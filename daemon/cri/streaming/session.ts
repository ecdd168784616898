/** What a client may ask of the streaming server, once, with the URL that the CRI has given it. */
import type { Readable, Writable } from 'node:stream';
import type { TerminalSize } from './terminal-size.ts';

/** Which streams there are. With a terminal, there is no stderr. */
export interface Wanted {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

export interface ExecSession extends Wanted {
  readonly kind: 'exec';
  readonly containerId: string;
  readonly command: readonly string[];
}

export interface AttachSession extends Wanted {
  readonly kind: 'attach';
  readonly containerId: string;
}

export interface PortForwardSession {
  readonly kind: 'portforward';
  readonly podSandboxId: string;
  /** For clients that name none themselves, which are those of the old WebSocket protocol. */
  readonly ports: readonly number[];
}

export type CommandSession = ExecSession | AttachSession;
export type Session = CommandSession | PortForwardSession;

/** A process of a container, as one client is connected to it. */
export interface RemoteProcess extends AsyncDisposable {
  /** Its end is the process's end of input. */
  readonly stdin: Writable | undefined;
  /** They end when the process has written the last byte, or the connection to it is given up. */
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
  /** Does nothing without a terminal. */
  resize(size: TerminalSize): Promise<void>;
  /** Its exit code: of an attached one undefined, as it was none of this client's. Resolves also when the client has gone. */
  readonly exited: Promise<number | undefined>;
}

/** What the streaming server connects its clients with. */
export interface Targets {
  /**
   * Starts a process in a container.
   *
   * @param signal aborted when the client is gone
   */
  exec(session: ExecSession, signal: AbortSignal): Promise<RemoteProcess>;
  /** Connects to a container's first process. */
  attach(session: AttachSession, signal: AbortSignal): Promise<RemoteProcess>;
  /**
   * The file of the network namespace that a pod is in; undefined for the host's.
   *
   * @throws RpcError NotFound, or FailedPrecondition when the pod does not run
   */
  network(podSandboxId: string): Promise<string | undefined>;
}
