/** Which failures of a registry are worth another try, and when. */
import { setTimeout as delay } from 'node:timers/promises';
import { Code, RpcError, messageOf } from '../../ttrpc/errors.ts';

/** What a registry, or the way to it, has failed with. */
export class RegistryError extends RpcError {
  /** HTTP status; undefined when there was no answer. */
  readonly status: number | undefined;
  readonly isTransient: boolean;
  /** Milliseconds the registry wants to be left alone. */
  readonly retryAfter: number | undefined;

  constructor(
    code: Code,
    message: string,
    details: {
      status?: number;
      isTransient?: boolean;
      retryAfter?: number | undefined;
      cause?: unknown;
    } = {},
  ) {
    super(code, message, details.cause === undefined ? undefined : { cause: details.cause });
    this.status = details.status;
    this.isTransient = details.isTransient ?? false;
    this.retryAfter = details.retryAfter;
  }
}

export interface RetryPolicy {
  readonly attempts: number;
  /** Milliseconds before the second attempt; doubled before each one after it. */
  readonly delay: number;
  /** Milliseconds that a registry may ask us to wait at most. */
  readonly patience: number;
}

export const defaultRetries: RetryPolicy = { attempts: 5, delay: 200, patience: 60_000 };

/** How long to wait after that many attempts in a row have failed; undefined to give up. */
export function pauseAfter(error: unknown, failures: number, policy: RetryPolicy): number | undefined {
  if (!(error instanceof RegistryError) || !error.isTransient || failures >= policy.attempts)
    return undefined;
  if (error.retryAfter !== undefined) {
    return error.retryAfter > policy.patience ? undefined : error.retryAfter;
  }
  const longest = policy.delay * 2 ** (failures - 1);
  return longest * (0.5 + Math.random() / 2);
}

/** Does something until it succeeds or fails for good. @throws what it failed with the last time */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  action: () => Promise<T>,
): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await action();
    } catch (error) {
      const pause = pauseAfter(error, failures, policy);
      if (pause === undefined) throw error;
      await delay(pause, undefined, { ...(signal && { signal }) });
    }
  }
}

/** A failure of the connection. @param what was being done, without secrets */
export function connectionError(what: string, error: unknown): RegistryError {
  return new RegistryError(Code.Unavailable, `${what}: ${reasonOf(error)}`, {
    isTransient: !isDistrust(error),
    cause: error,
  });
}

/**
 * Whether the certificate is not to be trusted, which another try does not change. The codes are OpenSSL's X509_V_ERR_… without
 * their prefix (Node, tls.md, "X509 certificate error codes").
 */
function isDistrust(error: unknown): boolean {
  const code = String((error as { code?: unknown } | undefined)?.code);
  return /^ERR_TLS_CERT_|CERT|UNABLE_TO_VERIFY_LEAF_SIGNATURE|HOSTNAME_MISMATCH/.test(code);
}

/** Node puts several refused addresses into one error without a text. */
function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join('; ');
  return messageOf(error);
}

/** Reads seconds or a date, in milliseconds from now. RFC 9110, section 10.2.3. */
export function parseRetryAfter(value: string | undefined, now = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value.trim())) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(date - now, 0);
}
