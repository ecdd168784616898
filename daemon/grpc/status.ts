/** How failures look on the wire. */
import type { Logger } from 'pino';
import { Code, RpcError, toRpcError } from '../../ttrpc/errors.ts';

export interface Status {
  readonly code: Code;
  readonly details: string;
}

/**
 * Characters of a message that are sent at most. It travels percent-encoded in a header, and a header block that grows past
 * 64 KiB is refused by nghttp2, which would turn the failure into a broken stream.
 */
const MAX_DETAILS = 4096;

/** The status a caller is given for what an implementation threw. What has no kind is a defect here and is logged. */
export function statusOf(error: unknown, method: string, log: Logger): Status {
  if (!(error instanceof RpcError)) log.error({ err: error, method }, 'call failed unexpectedly');
  else if (error.code === Code.Internal) log.error({ err: error, method }, 'call failed');
  else log.debug({ method, code: error.code, error: error.message }, 'call failed');
  const { code, message } = toRpcError(error);
  // encodeURI, which makes a header of it, throws on half a surrogate pair.
  const details = message.length > MAX_DETAILS ? `${message.slice(0, MAX_DETAILS)}…` : message;
  return { code: code === Code.Ok ? Code.Unknown : code, details: details.toWellFormed() };
}
