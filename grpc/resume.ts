/** How a subscriber says which message it has seen last, so that it is told what came after that one, whatever its daemon took for told. */
import { createHash } from 'node:crypto';

/** The metadata of the call. */
export const AFTER = 'moor-events-after';

/** What a message is known by, whose bytes are as they were sent. */
export function fingerprintOf(message: Uint8Array): string {
  return createHash('sha256').update(message).digest('hex');
}

export function isFingerprint(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}
