/**
 * The life of a stream, as one side sees it. Each side closes its own direction once; the functions below are the
 * only transitions, so that sending on a closed direction or closing one twice does not compile.
 */

/** Both sides may send. */
export type Open = 'open';
/** This side has said its last word. */
export type LocalClosed = 'local-closed';
/** The peer has said its last word. */
export type RemoteClosed = 'remote-closed';
/** Nothing more happens on this stream. */
export type Finished = 'finished';

export type StreamState = Open | LocalClosed | RemoteClosed | Finished;

/** This side may send. */
export type Sendable = Open | RemoteClosed;
/** The peer may send. */
export type Receivable = Open | LocalClosed;

export function isSendable(state: StreamState): state is Sendable {
  return state === 'open' || state === 'remote-closed';
}

export function isReceivable(state: StreamState): state is Receivable {
  return state === 'open' || state === 'local-closed';
}

export function closeLocal(state: Open): LocalClosed;
export function closeLocal(state: RemoteClosed): Finished;
export function closeLocal(state: Sendable): LocalClosed | Finished;
export function closeLocal(state: Sendable): LocalClosed | Finished {
  return state === 'open' ? 'local-closed' : 'finished';
}

export function closeRemote(state: Open): RemoteClosed;
export function closeRemote(state: LocalClosed): Finished;
export function closeRemote(state: Receivable): RemoteClosed | Finished;
export function closeRemote(state: Receivable): RemoteClosed | Finished {
  return state === 'open' ? 'remote-closed' : 'finished';
}
