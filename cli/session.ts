import type { Command } from 'commander';
import type * as Sdk from '../client/client.ts';
import type { CallOptions, Client } from '../client/client.ts';

/** What stands before the command on the command line. */
export interface GlobalOptions {
  readonly address: string;
  readonly namespace: string;
  /** Milliseconds for the command as a whole; 0 for ever. */
  readonly timeout: number;
  /** Milliseconds to wait for the daemon; 0 not at all. */
  readonly connectTimeout: number;
  readonly debug?: boolean;
}

/** A connection to the daemon for the time of one command. */
export interface Session {
  readonly client: Client;
  readonly sdk: typeof Sdk;
  /** To be given to every call: it holds `--timeout`. */
  readonly call: CallOptions & { readonly signal: AbortSignal };
  readonly globals: GlobalOptions;
}

export function globalsOf(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>();
}

/**
 * Runs a command with a connection. The SDK is loaded here, so that what needs no daemon (help, completion, a mistyped flag)
 * answers without it.
 */
export async function withClient(command: Command, use: (session: Session) => Promise<void>): Promise<void> {
  const globals = globalsOf(command);
  const sdk = await import('../client/client.ts');
  const { address, namespace, timeout, connectTimeout: patience } = globals;
  const abort = new AbortController();
  const overdue = () =>
    abort.abort(new sdk.RpcError(sdk.Code.DeadlineExceeded, `not done within ${timeout / 1000} s`));
  const timer = timeout > 0 ? setTimeout(overdue, timeout) : undefined;
  try {
    using client = await sdk.connect({ address, namespace, patience, signal: abort.signal });
    await use({ client, sdk, call: { signal: abort.signal }, globals });
  } finally {
    clearTimeout(timer);
  }
}
