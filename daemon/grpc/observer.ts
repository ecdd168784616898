/** Who counts calls. */
import type { Code } from '../../ttrpc/errors.ts';

export interface ObservedMethod {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

export interface ObservedCall {
  received(): void;
  sent(): void;
  /** It is over, with what the caller was told. */
  handled(code: Code): void;
}

export interface CallObserver {
  started(method: ObservedMethod): ObservedCall;
}
