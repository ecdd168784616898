/**
 * The kinds of failure a call can end with, shared by everything that speaks gRPC or ttrpc.
 *
 * Numbers and meaning: google.rpc.Code, used by both protocols.
 */
export const Code = {
  Ok: 0,
  Cancelled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

export type Code = (typeof Code)[keyof typeof Code];

/** A failure with a kind. Anything else that is thrown inside a call reaches the peer as `Unknown`. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: Code;

  constructor(code: Code, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

type Make = (message: string, cause?: unknown) => RpcError;

const of =
  (code: Code): Make =>
  (message, cause) =>
    new RpcError(code, message, cause === undefined ? undefined : { cause });

export const cancelled = of(Code.Cancelled);
export const unknown = of(Code.Unknown);
export const invalidArgument = of(Code.InvalidArgument);
export const deadlineExceeded = of(Code.DeadlineExceeded);
export const notFound = of(Code.NotFound);
export const alreadyExists = of(Code.AlreadyExists);
export const permissionDenied = of(Code.PermissionDenied);
export const resourceExhausted = of(Code.ResourceExhausted);
export const failedPrecondition = of(Code.FailedPrecondition);
export const aborted = of(Code.Aborted);
export const outOfRange = of(Code.OutOfRange);
export const unimplemented = of(Code.Unimplemented);
export const internal = of(Code.Internal);
export const unavailable = of(Code.Unavailable);
export const dataLoss = of(Code.DataLoss);

/** True for a failure of the given kind. */
export function isCode(error: unknown, code: Code): error is RpcError {
  return error instanceof RpcError && error.code === code;
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Any thrown value as an `RpcError`; what has no kind becomes `Unknown`. */
export function toRpcError(error: unknown): RpcError {
  return error instanceof RpcError ? error : unknown(messageOf(error), error);
}
