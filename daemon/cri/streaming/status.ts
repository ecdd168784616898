/** What the error stream ends with: Kubernetes' metav1.Status as JSON (k8s.io/apimachinery, api/errors). */

export interface Status {
  readonly metadata: Record<string, never>;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: 'NonZeroExitCode' | 'InternalError';
  readonly details?: {
    readonly causes: readonly { readonly reason?: 'ExitCode'; readonly message: string }[];
  };
  readonly code?: number;
}

export const SUCCESS: Status = { metadata: {}, status: 'Success' };

/** How a process's end is told: clients take the code from the cause, and end with it. */
export function exitStatus(code: number): Status {
  if (code === 0) return SUCCESS;
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

/** Of what could not be done. */
export function failureStatus(message: string): Status {
  return {
    metadata: {},
    status: 'Failure',
    message: `Internal error occurred: ${message}`,
    reason: 'InternalError',
    details: { causes: [{ message }] },
    code: 500,
  };
}

/** Protocols before the fourth have no word for success, and of a failure its text alone. */
export function written(status: Status, version: number): string {
  if (version >= 4) return JSON.stringify(status);
  return status.status === 'Success' ? '' : (status.message ?? '');
}
