import { failedPrecondition } from '../../ttrpc/errors.ts';

/** @throws RpcError FailedPrecondition that names the file, when a newer version has written it in a format unknown here */
export function refuseNewer(path: string, version: unknown, known: number): void {
  if (typeof version !== 'number' || version <= known) return;
  throw failedPrecondition(`${path} has format ${version}; this version knows formats up to ${known}`);
}
